//! Pieces of work, their steps, and the one that is being worked on.

use std::{
    borrow::Cow,
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime},
};

use http::HeaderMap;
use parking_lot::Mutex;

use crate::{context::Context, export::Exporter, log};

/// Steps and attributes of a piece of work that are kept; later ones are counted.
const MOST: usize = 128;

tokio::task_local! {
    static CURRENT: Arc<Node>;
}

/// Who the other side of a piece of work is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// There is none.
    #[default]
    Internal,
    /// Who asked for it.
    Server,
    /// Who is asked.
    Client,
}

/// What is told of a piece of work or a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// A text.
    Text(Cow<'static, str>),
    /// A number.
    Number(i64),
    /// Yes or no.
    Truth(bool),
}

impl From<&'static str> for Attribute {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Attribute {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<bool> for Attribute {
    fn from(truth: bool) -> Self {
        Self::Truth(truth)
    }
}

impl From<i64> for Attribute {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<usize> for Attribute {
    fn from(number: usize) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// Names and values.
pub(crate) type Attributes = Vec<(&'static str, Attribute)>;

/// Something that happened on the way.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Step { at: Instant, text: &'static str, attributes: Attributes },
    Child(Arc<Node>),
}

#[derive(Debug, Default)]
pub(crate) struct Course {
    pub(crate) attributes: Attributes,
    pub(crate) items: Vec<Item>,
    pub(crate) dropped: usize,
    pub(crate) error: Option<String>,
}

/// A trace that is sent.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) exporter: Arc<Exporter>,
    pub(crate) kind: Kind,
    pub(crate) parent: Option<[u8; 8]>,
    /// The place in another trace that this one was begun for.
    pub(crate) link: Option<Context>,
}

/// A piece of work.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: Cow<'static, str>,
    pub(crate) start: Instant,
    pub(crate) began: SystemTime,
    pub(crate) end: OnceLock<Instant>,
    /// Time from which on it is told of.
    pub(crate) threshold: OnceLock<Duration>,
    pub(crate) course: Mutex<Course>,
    /// The place in the trace, if there is one: also of traces that are not sent, for others may be asked.
    pub(crate) context: Option<Context>,
    pub(crate) sent: Option<Sent>,
}

impl Node {
    fn new(name: Cow<'static, str>, context: Option<Context>, sent: Option<Sent>) -> Self {
        Self {
            name,
            start: Instant::now(),
            began: SystemTime::now(),
            end: OnceLock::new(),
            threshold: OnceLock::new(),
            course: Mutex::default(),
            context,
            sent,
        }
    }

    /// The wall clock at an instant.
    pub(crate) fn wall(&self, at: Instant) -> SystemTime {
        self.began + at.saturating_duration_since(self.start)
    }

    pub(crate) fn ended(&self) -> Instant {
        self.end.get().copied().unwrap_or_else(Instant::now)
    }

    fn push(&self, item: Item) {
        let mut course = self.course.lock();
        match course.items.len() {
            ..MOST => course.items.push(item),
            _ => course.dropped += 1,
        }
    }

    fn step(&self, text: &'static str, attributes: Attributes) {
        self.push(Item::Step { at: Instant::now(), text, attributes });
    }

    /// A piece of this work.
    fn child(self: &Arc<Self>, name: Cow<'static, str>, kind: Kind) -> Arc<Self> {
        let context = self.context.as_ref().map(|own| Context { span: crate::export::id(), ..own.clone() });
        let sent = self.sent.as_ref().map(|own| Sent {
            exporter: Arc::clone(&own.exporter),
            kind,
            parent: self.context.as_ref().map(|context| context.span),
            link: None,
        });
        let child = Arc::new(Self::new(name, context, sent));
        self.push(Item::Child(Arc::clone(&child)));
        child
    }

    fn finish(&self) {
        if self.end.set(Instant::now()).is_ok()
            && let Some(sent) = &self.sent
        {
            sent.exporter.offer(self, sent);
        }
    }
}

/// A piece of work. It ends when this is dropped.
#[derive(Debug, Default)]
pub struct Span(Option<Arc<Node>>);

impl Span {
    pub(crate) fn begin(name: Cow<'static, str>, context: Option<Context>, sent: Option<Sent>) -> Self {
        Self(Some(Arc::new(Node::new(name, context, sent))))
    }

    /// Tells the log, in upstream's form, of work that has taken longer when it ends.
    #[must_use]
    pub fn log_if_long(self, threshold: Duration) -> Self {
        if let Some(node) = &self.0 {
            node.threshold.get_or_init(|| threshold);
        }
        self
    }

    #[cfg(test)]
    pub(crate) fn node(&self) -> Option<&Node> {
        self.0.as_deref()
    }

    /// Notes something of the work.
    pub fn set(&self, name: &'static str, value: impl Into<Attribute>) {
        if let Some(node) = &self.0 {
            let mut course = node.course.lock();
            if course.attributes.len() < MOST {
                course.attributes.push((name, value.into()));
            }
        }
    }

    /// Notes that the work failed.
    pub fn fail(&self, why: impl Into<String>) {
        if let Some(node) = &self.0 {
            node.course.lock().error = Some(why.into());
        }
    }

    /// Notes that a step is done.
    pub fn step(&self, text: &'static str) {
        if let Some(node) = &self.0 {
            node.step(text, Vec::new());
        }
    }

    /// Begins a piece of this work.
    pub fn child(&self, name: impl Into<Cow<'static, str>>, kind: Kind) -> Span {
        Span(self.0.as_ref().map(|node| node.child(name.into(), kind)))
    }

    /// The place in the trace.
    pub fn context(&self) -> Option<&Context> {
        self.0.as_ref().and_then(|node| node.context.as_ref())
    }

    /// Whether anybody is told: who is sent the trace, or the log, because it takes long already.
    pub fn is_told(&self) -> bool {
        let node = self.0.as_ref();
        node.is_some_and(|node| {
            node.sent.is_some() || node.threshold.get().is_some_and(|most| node.start.elapsed() >= *most)
        })
    }

    /// Whether anybody is sent the trace.
    pub fn is_sent(&self) -> bool {
        self.0.as_ref().is_some_and(|node| node.sent.is_some())
    }

    /// Runs what belongs to this work.
    pub fn within<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        enter(Current(self.0.clone()), work)
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some(node) = self.0.take() else { return };
        node.finish();
        if let Some(&threshold) = node.threshold.get()
            && node.ended().saturating_duration_since(node.start) >= threshold
        {
            // The macro has a `log` of its own.
            let text = log::text(&node, threshold);
            tracing::info!(plain = true, "{text}");
        }
    }
}

/// The work that is being done, to take along into another task.
#[derive(Clone, Debug, Default)]
pub struct Current(Option<Arc<Node>>);

/// The work that is being done here.
pub fn current() -> Current {
    Current(CURRENT.try_with(Arc::clone).ok())
}

/// Runs what belongs to a work, in whatever task.
pub async fn enter<F: Future>(current: Current, work: F) -> F::Output {
    match current.0 {
        Some(node) => CURRENT.scope(node, work).await,
        None => work.await,
    }
}

/// Begins a piece of the work that is being done; of none, none.
pub fn child(name: impl Into<Cow<'static, str>>, kind: Kind) -> Span {
    Span(CURRENT.try_with(|node| node.child(name.into(), kind)).ok())
}

/// Notes that a step of the work that is being done is done.
pub fn step<const N: usize>(text: &'static str, attributes: [(&'static str, Attribute); N]) {
    // Outside of any work there is nobody to tell.
    CURRENT.try_with(|node| node.step(text, attributes.into())).unwrap_or_default();
}

/// Writes the place of the work that is being done into the headers of a request.
pub fn inject(headers: &mut HeaderMap) {
    let context = CURRENT.try_with(|node| node.context.clone()).ok().flatten();
    if let Some(context) = context {
        context.inject(headers);
    }
}
