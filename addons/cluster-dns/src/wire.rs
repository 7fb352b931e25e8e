//! Messages: what is taken for a question, and answers that fit.

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, RecordType},
};

/// Largest answer over UDP: it passes every path in one piece.
pub(crate) const MAX_UDP: u16 = 1232;
/// Smallest size every client takes.
const MIN_UDP: u16 = 512;
const HEADER: usize = 12;

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

impl Transport {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// A question and what its answer depends on.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    id: u16,
    recursion_desired: bool,
    checking_disabled: bool,
    /// Size of answers and the wish for signatures, if the client speaks EDNS.
    edns: Option<(u16, bool)>,
    pub(crate) query: Query,
}

impl Request {
    /// Wish for signatures, wish not to have them checked.
    pub(crate) fn flags(&self) -> (bool, bool) {
        (self.edns.is_some_and(|(_, wanted)| wanted), self.checking_disabled)
    }

    /// Room for the answer.
    pub(crate) fn room(&self, transport: Transport) -> usize {
        match transport {
            Transport::Tcp => usize::from(u16::MAX),
            Transport::Udp => self.edns.map_or(MIN_UDP, |(size, _)| size.clamp(MIN_UDP, MAX_UDP)).into(),
        }
    }

    /// An answer without records.
    pub(crate) fn answer(&self, code: ResponseCode) -> Message {
        let mut message = Message::response(self.id, OpCode::Query);
        message.metadata.recursion_desired = self.recursion_desired;
        message.metadata.recursion_available = true;
        message.metadata.checking_disabled = self.checking_disabled;
        message.metadata.response_code = code;
        message.add_query(self.query.clone());
        if let Some((_, signatures)) = self.edns {
            message.set_edns(edns(signatures));
        }
        message
    }

    /// The answer of an upstream as the answer to this question.
    pub(crate) fn relay(&self, upstream: Message) -> Message {
        let mut message = self.answer(upstream.metadata.response_code);
        message.metadata.authentic_data = upstream.metadata.authentic_data;
        message.answers = upstream.answers;
        message.authorities = upstream.authorities;
        message.additionals = upstream.additionals;
        message
    }
}

fn edns(signatures: bool) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(MAX_UDP);
    edns.set_dnssec_ok(signatures);
    edns
}

/// What came.
pub(crate) enum Received {
    /// A question.
    Question(Box<Request>),
    /// Something that is answered at once.
    Refused(Box<Message>),
    /// Nothing to answer.
    Noise,
}

/// Takes a message apart.
pub(crate) fn receive(bytes: &[u8]) -> Received {
    let [high, low, flags, ..] = *bytes else { return Received::Noise };
    if bytes.len() < HEADER || flags & 0x80 != 0 {
        return Received::Noise;
    }
    let id = u16::from_be_bytes([high, low]);
    let refuse = |code| Received::Refused(Box::new(Message::error_msg(id, OpCode::Query, code)));
    let Ok(mut message) = Message::from_vec(bytes) else { return refuse(ResponseCode::FormErr) };
    if message.metadata.message_type != MessageType::Query {
        return Received::Noise;
    }
    if message.metadata.op_code != OpCode::Query {
        let op_code = message.metadata.op_code;
        return Received::Refused(Box::new(Message::error_msg(id, op_code, ResponseCode::NotImp)));
    }
    let (Some(query), true) = (message.queries.pop(), message.queries.is_empty()) else {
        return refuse(ResponseCode::FormErr);
    };
    let request = Request {
        id,
        recursion_desired: message.metadata.recursion_desired,
        checking_disabled: message.metadata.checking_disabled,
        edns: message.edns.as_ref().map(|e| (e.max_payload(), e.flags().dnssec_ok)),
        query,
    };
    if message.edns.as_ref().is_some_and(|e| e.version() > 0) {
        return Received::Refused(Box::new(request.answer(ResponseCode::BADVERS)));
    }
    let transfer = matches!(request.query.query_type(), RecordType::AXFR | RecordType::IXFR);
    if transfer || request.query.query_class() != DNSClass::IN {
        return Received::Refused(Box::new(request.answer(ResponseCode::Refused)));
    }
    Received::Question(Box::new(request))
}

/// Encodes an answer into at most `room` bytes: first without additional records, then with as many answers as fit and
/// the mark that there are more.
pub(crate) fn encode(mut message: Message, room: usize) -> Option<Vec<u8>> {
    let whole = message.to_vec().ok();
    if let Some(bytes) = whole.filter(|b| b.len() <= room) {
        return Some(bytes);
    }
    message.additionals.clear();
    if let Some(bytes) = message.to_vec().ok().filter(|b| b.len() <= room) {
        return Some(bytes);
    }
    message.metadata.truncation = true;
    message.authorities.clear();
    let all = std::mem::take(&mut message.answers);
    let (mut fits, mut too_many) = (0, all.len() + 1);
    let mut best = message.to_vec().ok().filter(|b| b.len() <= room)?;
    while fits + 1 < too_many {
        let middle = fits.midpoint(too_many);
        message.answers = all.iter().take(middle).cloned().collect();
        match message.to_vec().ok().filter(|b| b.len() <= room) {
            Some(bytes) => (fits, best) = (middle, bytes),
            None => too_many = middle,
        }
    }
    Some(best)
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::{RData, Record, rdata::A};

    use super::*;
    use crate::name::parse;

    fn question(size: Option<u16>) -> Message {
        let mut message = Message::query();
        message.add_query(Query::query(parse("web.default.svc.cluster.local").expect("name"), RecordType::A));
        if let Some(size) = size {
            let mut edns = Edns::new();
            edns.set_max_payload(size);
            message.set_edns(edns);
        }
        message
    }

    fn received(message: &Message) -> Received {
        receive(&message.to_vec().expect("bytes"))
    }

    #[test]
    fn room_is_what_the_client_takes() {
        for (size, room) in [(None, 512), (Some(100), 512), (Some(700), 700), (Some(9000), 1232)] {
            let Received::Question(request) = received(&question(size)) else { panic!("a question") };
            assert_eq!(request.room(Transport::Udp), room, "{size:?}");
        }
    }

    #[test]
    fn what_is_no_question_is_refused_or_dropped() {
        assert!(matches!(receive(b"abc"), Received::Noise));
        assert!(matches!(receive(&[0, 1, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Received::Noise));
        let refused = |bytes: &[u8]| match receive(bytes) {
            Received::Refused(message) => message.metadata.response_code,
            _ => panic!("not refused: {bytes:?}"),
        };
        assert_eq!(refused(&[0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]), ResponseCode::FormErr);
        assert_eq!(refused(&[0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), ResponseCode::FormErr);
        let mut other = question(None);
        other.metadata.op_code = OpCode::Status;
        assert_eq!(refused(&other.to_vec().expect("bytes")), ResponseCode::NotImp);
        let mut transfer = question(None);
        transfer.queries.iter_mut().for_each(|q| {
            q.set_query_type(RecordType::AXFR);
        });
        assert_eq!(refused(&transfer.to_vec().expect("bytes")), ResponseCode::Refused);
        let mut newer = question(Some(1232));
        newer.edns.iter_mut().for_each(|e| {
            e.set_version(1);
        });
        let Received::Refused(answer) = received(&newer) else { panic!("not refused") };
        let answer = Message::from_vec(&encode(*answer, 512).expect("bytes")).expect("a message");
        assert_eq!(u16::from(answer.metadata.response_code), 16, "BADVERS, or BADSIG which has the same number");
    }

    #[test]
    fn long_answers_are_cut_and_marked() {
        let Received::Question(request) = received(&question(None)) else { panic!("a question") };
        let mut answer = request.answer(ResponseCode::NoError);
        for last in 0..200 {
            let data = RData::A(A([10, 0, 0, last].into()));
            answer.add_answer(Record::from_rdata(request.query.name().clone(), 30, data));
        }
        let bytes = encode(answer.clone(), 512).expect("bytes");
        let cut = Message::from_vec(&bytes).expect("a message");
        assert!(bytes.len() <= 512 && cut.metadata.truncation);
        assert!((20..40).contains(&cut.answers.len()), "{}", cut.answers.len());
        let whole = Message::from_vec(&encode(answer, 65535).expect("bytes")).expect("a message");
        assert_eq!((whole.answers.len(), whole.metadata.truncation), (200, false));
    }
}
