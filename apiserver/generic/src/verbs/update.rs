//! The read-modify-write loop behind PUT, PATCH and apply.

use axum::body::Body;
use http::{Response, StatusCode};
use machinery::{
    ApiError, ApiResult,
    field::{ErrorList, Path},
    meta,
};
use serde_json::{Value, json};

use super::{
    body::{self, dedup_owners},
    context::Moment,
    create,
    managed::{self, Origin},
    scale, validate,
};
use crate::{
    admission::Operation,
    authz::{Attributes, Decision, forbidden},
    endpoint::{Call, Reservation, ScalePaths},
    negotiate::Target,
    options::WriteOptions,
    resource::{Resource, Stored, Swap},
};

/// Attempts at one compare-and-swap before the client is asked to retry.
const ATTEMPTS: usize = 32;

/// Serves PUT.
pub async fn update(call: &Call) -> ApiResult<Response<Body>> {
    let options = WriteOptions::parse("UpdateOptions", &call.query, &call.headers, false)?;
    call.output(Target::Item)?;
    let mut sent = body::decode_object(call, &call.endpoint.gvk, options.field_validation)?;
    body::check_identity(&mut sent, call)?;
    dedup_owners(&mut sent, &call.warnings, false);
    spans::step("About to convert to expected version", []);
    let mut sent = call.to_stored(sent);
    let resource = call.resource()?;
    call.strategy(resource).defaults(&mut sent);
    spans::step("Conversion done", []);

    let starting = resource.starting_point(&call.info.namespace, &call.info.name).await?;
    let (starting, freshly_read) = match starting {
        Some(stored) => (stored, false),
        None if resource.strategy.create_on_update() && call.info.subresource.is_empty() => {
            return create_instead(call, sent, &options).await;
        }
        None => return Err(ApiError::not_found(&call.group_resource(), &call.info.name)),
    };
    check_uid(call, &sent, &starting.object)?;
    let loop_ = Loop { call, resource, options: &options, starting, fresh: freshly_read, scale: None };
    spans::step("About to store object in database", []);
    let (object, _) = loop_.run(|_: &Stored| Ok(sent.clone()), Origin::Update).await?;
    spans::step("Object stored in database", []);
    spans::step("About to write a response", []);
    call.writer(Target::Item)?.object(StatusCode::OK, object)
}

async fn create_instead(call: &Call, sent: Value, options: &WriteOptions) -> ApiResult<Response<Body>> {
    if !meta::uid(&sent).is_empty() || !meta::resource_version(&sent).is_empty() {
        return Err(ApiError::not_found(&call.group_resource(), &call.info.name));
    }
    require_create(call).await?;
    let mut served = call.to_served(sent);
    body::place_new(&mut served, call)?;
    let object = create::create_object(call, served, options, Origin::Update).await?;
    call.writer(Target::Item)?.object(StatusCode::CREATED, object)
}

/// A write that creates needs `create` too.
pub async fn require_create(call: &Call) -> ApiResult<()> {
    let attributes = Attributes::of(&call.info, &call.query, &call.user).with_verb("create");
    match call.server.authorizer.authorize(&attributes).await {
        Decision::Allow(_) => Ok(()),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(forbidden(&attributes, &reason)),
    }
}

fn check_uid(call: &Call, sent: &Value, stored: &Value) -> ApiResult<()> {
    let (wanted, present) = (meta::uid(sent), meta::uid(stored));
    if wanted.is_empty() || wanted == present {
        return Ok(());
    }
    let cause = format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {present}");
    Err(ApiError::conflict(&call.group_resource(), &call.info.name, &cause))
}

/// A compare-and-swap in progress.
pub struct Loop<'a> {
    /// The call.
    pub call: &'a Call,
    /// Its resource.
    pub resource: &'a Resource,
    /// Its options.
    pub options: &'a WriteOptions,
    /// State to begin with, perhaps from the cache.
    pub starting: Stored,
    /// Whether `starting` was read from the store itself.
    pub fresh: bool,
    /// Of writes through `scale`: where the object keeps what its Scale shows. Admission sees Scales.
    pub scale: Option<&'a ScalePaths>,
}

impl Loop<'_> {
    /// Computes the new object from the present one until it can be stored. `compute` takes the present object and
    /// answers the wanted one, defaulted, both in the version that writes work on. Answers the object as served (with whether anything was written).
    ///
    /// Errors computed from a cached state are not trusted: the state is read from the store and tried again.
    pub async fn run(
        mut self,
        mut compute: impl FnMut(&Stored) -> ApiResult<Value>,
        origin: Origin,
    ) -> ApiResult<(Value, bool)> {
        for _ in 0..ATTEMPTS {
            match self.attempt(&mut compute, origin).await {
                Ok(Attempt::Done(object, written)) => return Ok((self.call.to_served(object), written)),
                Ok(Attempt::Lost(Some(current))) => {
                    self.starting = current;
                    self.fresh = true;
                }
                Ok(Attempt::Lost(None)) => return Err(self.not_found()),
                Ok(Attempt::Unanswered(error)) => return Err(error),
                Err(error) if self.fresh => return Err(error),
                Err(error) => {
                    let info = &self.call.info;
                    let current = self.resource.current(&info.namespace, &info.name).await?;
                    let current = current.ok_or_else(|| self.not_found())?;
                    let unchanged = current.revision == self.starting.revision;
                    self.starting = current;
                    self.fresh = true;
                    if unchanged {
                        return Err(error);
                    }
                }
            }
        }
        Err(ApiError::stale(&self.call.group_resource(), &self.call.info.name))
    }

    fn not_found(&self) -> ApiError {
        ApiError::not_found(&self.call.group_resource(), &self.call.info.name)
    }

    async fn attempt(
        &self,
        compute: &mut impl FnMut(&Stored) -> ApiResult<Value>,
        origin: Origin,
    ) -> ApiResult<Attempt> {
        let (call, resource) = (self.call, self.resource);
        let strategy = call.strategy(resource);
        let converted;
        let present = match call.works_elsewhere() {
            true => {
                let object = call.working(self.starting.object.clone()).await?;
                converted = Stored { object, revision: self.starting.revision };
                &converted
            }
            false => &self.starting,
        };
        let old = &present.object;
        let moment = Moment::now();
        let mut new = compute(present)?;
        self.check_version(&new)?;
        let subresource = call.info.subresource.as_str();
        if origin == Origin::Update {
            moment.with_context(&call.user, |c| strategy.prepare_update(&mut new, old, subresource, c));
            restore_system_fields(&mut new, old);
            managed::track_update(call, &mut new, old, &self.options.manager, &moment)?;
        }
        let mut request = call.admission(Operation::Update, &call.info.name, self.options.dry_run);
        let old_scale = self.scale.map(|paths| scale::of_parent(old, paths)).transpose()?;
        match self.scale.zip(old_scale.as_ref()) {
            None => call.server.plugins.admit(&request, Some(&mut new), Some(old)).await?,
            Some((paths, before)) => {
                request.kind = scale::scale_kind();
                let mut wanted = scale::of_parent(&new, paths)?;
                call.server.plugins.admit(&request, Some(&mut wanted), Some(before)).await?;
                new = scale::onto_parent(call, &new, &wanted, paths)?;
            }
        }
        call.settle(&mut new);
        dedup_owners(&mut new, &call.warnings, true);
        let reservation = match (&call.endpoint.hooks, subresource) {
            (Some(hooks), "") => hooks.begin(&mut new, Some(old), self.options.dry_run).await?,
            _ => Reservation::none(),
        };
        moment.with_context(&call.user, |c| strategy.prepare_update(&mut new, old, subresource, c));
        restore_system_fields(&mut new, old);
        let mut errors = rules::metadata::validate_update(&new, old, resource.namespaced);
        errors.append(strategy.validate_update(&new, old, subresource));
        validate::fail(&resource.gvk, &call.info.name, errors)?;
        call.warnings.extend(strategy.warnings(&new, Some(old)));
        managed::drop_idle_timestamps(&mut new, old);
        match self.scale.zip(old_scale.as_ref()) {
            None => call.server.plugins.validate(&request, Some(&new), Some(old)).await?,
            Some((paths, before)) => {
                let wanted = scale::of_parent(&new, paths)?;
                call.server.plugins.validate(&request, Some(&wanted), Some(before)).await?;
            }
        }
        self.store(new, old, reservation).await
    }

    /// resourceVersion rules of a PUT or patched object.
    fn check_version(&self, new: &Value) -> ApiResult<()> {
        let sent = meta::resource_version(new);
        if sent.is_empty() || sent == "0" {
            if self.call.strategy(self.resource).unconditional_update() {
                return Ok(());
            }
            let mut errors = ErrorList::default();
            errors.invalid(
                &Path::new("metadata").child("resourceVersion"),
                &json!(0),
                "must be specified for an update",
            );
            let kind = machinery::GroupKind {
                group: self.call.endpoint.gvr.group.clone(),
                kind: self.call.endpoint.gvr.resource.clone(),
            };
            return Err(ApiError::invalid(&kind, &self.call.info.name, errors.into_causes()));
        }
        if sent == meta::resource_version(&self.starting.object) {
            return Ok(());
        }
        Err(ApiError::stale(&self.call.group_resource(), &self.call.info.name))
    }

    /// Stores the new object, or removes it with its last finalizer, or finds that nothing changed.
    async fn store(&self, mut new: Value, old: &Value, reservation: Reservation) -> ApiResult<Attempt> {
        let (call, resource) = (self.call, self.resource);
        let (namespace, name) = (meta::namespace(old), meta::name(old));
        meta::set_text(&mut new, "resourceVersion", meta::resource_version(old));
        if gone_with_last_finalizer(resource, &new) {
            if self.options.dry_run {
                return Ok(Attempt::Done(new, false));
            }
            return Ok(match resource.remove(namespace, name, self.starting.revision).await {
                Ok(Ok(revision)) => {
                    meta::set_text(&mut new, "resourceVersion", &revision.to_string());
                    reservation.commit();
                    if let Some(hooks) = &call.endpoint.hooks {
                        hooks.deleted(&new).await;
                    }
                    Attempt::Done(new, true)
                }
                Ok(Err(current)) => Attempt::Lost(current),
                Err(error) => Attempt::Unanswered(error),
            });
        }
        // An object that is stored in another version is written anew in that of storage.
        let outdated = call.works_elsewhere()
            && self.starting.object.get("apiVersion").and_then(Value::as_str) != Some(resource.codec().api_version());
        if new == *old && !outdated && !resource.is_stale(namespace, name).await? {
            if !self.fresh {
                // Nothing to write, but the cached state must still be the present one.
                let current = resource.current(namespace, name).await?;
                if current.as_ref().is_none_or(|c| c.revision != self.starting.revision) {
                    return Ok(Attempt::Lost(current));
                }
            }
            return Ok(Attempt::Done(new, false));
        }
        if self.options.dry_run {
            return Ok(Attempt::Done(new, false));
        }
        match resource.replace(&call.unload(&new).await?, self.starting.revision).await {
            Ok(Swap::Done(stored)) => {
                reservation.commit();
                Ok(Attempt::Done(call.written(new, &stored)?, true))
            }
            Ok(Swap::Lost(current)) => Ok(Attempt::Lost(current)),
            Err(error) => Ok(Attempt::Unanswered(error)),
        }
    }
}

enum Attempt {
    Done(Value, bool),
    Lost(Option<Stored>),
    /// The store has not said whether it wrote: another attempt could take its own write for somebody else's.
    Unanswered(ApiError),
}

/// Whether an update leaves an object that only waited for its finalizers.
fn gone_with_last_finalizer(resource: &Resource, new: &Value) -> bool {
    let grace = new.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0);
    meta::is_deleting(new) && grace == 0 && meta::finalizers(new).is_empty() && !resource.strategy.holds_deletion(new)
}

/// Fields of the metadata that an update never changes.
fn restore_system_fields(new: &mut Value, old: &Value) {
    let stored = old.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    let metadata = meta::metadata_mut(new);
    metadata.remove("selfLink");
    for field in ["creationTimestamp", "deletionTimestamp"] {
        match stored.get(field) {
            Some(value) => {
                metadata.insert(field.to_owned(), value.clone());
            }
            None => {
                metadata.remove(field);
            }
        }
    }
    for field in ["uid", "deletionGracePeriodSeconds"] {
        if let (false, Some(value)) = (metadata.contains_key(field), stored.get(field)) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
}
