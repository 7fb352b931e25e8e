//! POST: the create half of the write path, one sequence.

use axum::body::Body;
use http::{Response, StatusCode};
use machinery::{ApiError, ApiResult, meta};
use rand::Rng;
use serde_json::{Value, json};

use super::{
    body::{self, dedup_owners},
    context::Moment,
    managed, validate,
};
use crate::{
    admission::Operation,
    endpoint::{Call, Reservation},
    negotiate::Target,
    options::WriteOptions,
    resource::{Resource, Swap},
};

/// Attempts to find a free generated name, and its random alphabet.
const NAME_ATTEMPTS: usize = 8;
const NAME_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const GENERATED_BASE: usize = 58;

/// Serves POST on a collection.
pub async fn create(call: &Call) -> ApiResult<Response<Body>> {
    let options = WriteOptions::parse("CreateOptions", &call.query, &call.headers, false)?;
    call.output(Target::Item)?;
    let mut object = body::decode_object(call, &call.endpoint.gvk, options.field_validation)?;
    if !meta::resource_version(&object).is_empty() {
        return Err(ApiError::new(
            500,
            machinery::Reason::Unknown,
            "resourceVersion should not be set on objects to be created",
        ));
    }
    body::place_new(&mut object, call)?;
    dedup_owners(&mut object, &call.warnings, false);
    let object = create_object(call, object, &options, managed::Origin::Update).await?;
    spans::step("About to write a response", []);
    call.writer(Target::Item)?.object(StatusCode::CREATED, object)
}

/// Runs a decoded object in the served version through defaulting, admission, preparation, validation and storage.
/// Answers the stored object in the served version. Also used by PUT and apply that create.
pub async fn create_object(
    call: &Call,
    object: Value,
    options: &WriteOptions,
    origin: managed::Origin,
) -> ApiResult<Value> {
    let resource = call.resource()?;
    let strategy = call.strategy(resource);
    if call.endpoint.custom().is_some_and(|c| c.is_terminating()) {
        let why = "create not allowed while custom resource definition is terminating";
        return Err(ApiError::forbidden(&call.group_resource(), meta::name(&object), why));
    }
    let moment = Moment::now();
    spans::step("About to convert to expected version", []);
    let mut object = call.to_stored(object);
    strategy.defaults(&mut object);
    spans::step("Conversion done", []);
    if origin == managed::Origin::Update {
        managed::track_create(call, &mut object, &options.manager, &moment)?;
    }
    let mut request = call.admission(Operation::Create, meta::name(&object), options.dry_run);
    call.server.plugins.admit(&request, Some(&mut object), None).await?;
    call.settle(&mut object);
    dedup_owners(&mut object, &call.warnings, true);
    let metadata = meta::metadata_mut(&mut object);
    metadata.insert("creationTimestamp".into(), json!(moment.text));
    metadata.insert("uid".into(), json!(uuid::Uuid::new_v4().to_string()));

    let generated = meta::name(&object).is_empty() && !meta::text(&object, "generateName").is_empty();
    let template = object;
    for attempt in 1..=NAME_ATTEMPTS {
        let mut object = template.clone();
        if generated {
            let name = generated_name(meta::text(&object, "generateName"));
            meta::set_text(&mut object, "name", &name);
        }
        request.name = meta::name(&object).to_owned();
        let reservation = prepare(call, resource, &mut object, options.dry_run, &moment).await?;
        call.server.plugins.validate(&request, Some(&object), None).await?;
        if options.dry_run {
            return Ok(call.to_served(object));
        }
        spans::step("About to store object in database", []);
        let swap = resource.insert(&call.unload(&object).await?).await?;
        spans::step("Write to database call succeeded", []);
        match swap {
            Swap::Done(stored) => {
                reservation.commit();
                return Ok(call.to_served(call.written(object, &stored)?));
            }
            Swap::Lost(_) if generated && attempt < NAME_ATTEMPTS => {}
            Swap::Lost(current) => return Err(taken(call, &object, current.map(|s| s.object), generated)),
        }
    }
    Err(ApiError::internal("no attempt at a generated name was made"))
}

async fn prepare(
    call: &Call,
    resource: &Resource,
    object: &mut Value,
    dry_run: bool,
    moment: &Moment,
) -> ApiResult<Reservation> {
    let strategy = call.strategy(resource);
    let reservation = match &call.endpoint.hooks {
        Some(hooks) => hooks.begin(object, None, dry_run).await?,
        None => Reservation::none(),
    };
    moment.with_context(&call.user, |context| strategy.prepare_create(object, context));
    let name = meta::name(object).to_owned();
    validate::fail(&resource.gvk, &name, strategy.validate_create(object))?;
    validate::fail(&resource.gvk, &name, rules::metadata::validate_create(object, resource.namespaced))?;
    call.warnings.extend(strategy.warnings(object, None));
    Ok(reservation)
}

fn generated_name(prefix: &str) -> String {
    let mut end = prefix.len().min(GENERATED_BASE);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    let mut rng = rand::rng();
    let suffix = (0..5).map(|_| char::from(NAME_ALPHABET[rng.random_range(0..NAME_ALPHABET.len())]));
    prefix[..end].chars().chain(suffix).collect()
}

fn taken(call: &Call, object: &Value, current: Option<Value>, generated: bool) -> ApiError {
    let error = ApiError::already_exists(&call.group_resource(), meta::name(object));
    if generated {
        let text = format!("{error}, the server was not able to generate a unique name for the object");
        return error.edit(|s| s.message = text).retry_after(1);
    }
    if current.is_some_and(|o| meta::is_deleting(&o)) { error.prefixed("object is being deleted: ") } else { error }
}
