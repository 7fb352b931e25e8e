//! Consistent states of a cache.

use std::{ops::Bound, sync::Arc};

use imbl::OrdMap;

use super::object::CachedObject;

/// Objects by key.
pub(super) type Objects = OrdMap<Arc<str>, Arc<CachedObject>>;
/// Objects by the value of a hot field, and key.
pub(super) type ByField = OrdMap<(Arc<str>, Arc<str>), Arc<CachedObject>>;

/// Objects of a range, in key order.
pub type Items<'a> = Box<dyn Iterator<Item = (&'a str, &'a Arc<CachedObject>)> + Send + 'a>;

/// A consistent state of the cache; taking one costs nothing and holding one delays nobody.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its revision.
    pub revision: i64,
    /// Objects of the range that are not in this snapshot, because a limited read of the store made it.
    pub beyond: i64,
    pub(super) prefix: Arc<str>,
    pub(super) objects: Objects,
    pub(super) hot: Vec<(&'static str, ByField)>,
}

impl Snapshot {
    /// The objects under the prefix it was asked for, from key `start` on, in key order.
    pub fn range<'a>(&'a self, start: Option<&str>) -> Items<'a> {
        let start = start.filter(|start| *start > &*self.prefix).unwrap_or(&self.prefix);
        let range = self.objects.range::<_, str>((Bound::Included(start), Bound::Unbounded));
        let items = range.map(|(key, object)| (&**key, object));
        Box::new(items.take_while(|(key, _)| key.starts_with(&*self.prefix)))
    }

    /// Like [`Self::range`], but only the objects with this value of a hot field, found without scanning. `None` if
    /// this snapshot cannot be looked up by the field.
    pub fn by_field<'a>(&'a self, field: &str, value: &str, start: Option<&str>) -> Option<Items<'a>> {
        let (_, map) = self.hot.iter().find(|(name, _)| *name == field)?;
        let start = start.filter(|start| *start > &*self.prefix).unwrap_or(&self.prefix);
        let value: Arc<str> = Arc::from(value);
        let from = (Arc::clone(&value), Arc::from(start));
        let range = map.range((Bound::Included(from), Bound::Unbounded));
        let items = range.take_while(move |((v, key), _)| *v == value && key.starts_with(&*self.prefix));
        Some(Box::new(items.map(|((_, key), object)| (&**key, object))))
    }

    /// The object of a key.
    pub fn get(&self, key: &str) -> Option<&Arc<CachedObject>> {
        self.objects.get(key)
    }

    /// Number of objects under the prefix it was asked for, from key `start` on; those beyond a limited read included.
    pub fn count(&self, start: Option<&str>) -> usize {
        self.range(start).count() + usize::try_from(self.beyond).unwrap_or(0)
    }
}
