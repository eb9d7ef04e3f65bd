//! Servers that are none: they say which servers there are and which of them is the controller, and what else a test has them say.
//!
//! They speak as much of the protocol as that takes (ApiVersions 0, Metadata 1, <https://kafka.apache.org/protocol>): there are no topics. The tests of the unsafe module
//! compile this by its path. Not here: what clients do with it.

use std::{
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

const METADATA: u16 = 3;
const API_VERSIONS: u16 = 18;
/// UNKNOWN_TOPIC_OR_PARTITION, UNSUPPORTED_VERSION.
const UNKNOWN: u16 = 3;
const UNSUPPORTED: u16 = 35;

/// What a server says to a question, of which it gets the body; `None`: nothing, ever.
pub(crate) type Says = dyn Fn(&Fake, usize, &[u8]) -> Option<Vec<u8>> + Send + Sync;

/// Servers, from number 0 on.
pub(crate) struct Fake {
    ports: Vec<u16>,
    /// They have just begun, and know of no servers.
    pub(crate) begins: AtomicBool,
    /// Which of them is the controller.
    pub(crate) controller: AtomicUsize,
    /// The question, beside those that all answer, and what is said to it. Its first version is the one that is known.
    question: u16,
    says: Box<Says>,
}

impl Fake {
    /// So many servers, which live as long as the process.
    pub(crate) fn start(
        count: usize,
        question: u16,
        says: impl Fn(&Self, usize, &[u8]) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports = listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        let (begins, controller, says) = (AtomicBool::new(false), AtomicUsize::new(0), Box::new(says));
        let fake = Arc::new(Self { ports, begins, controller, question, says });
        for (number, listener) in listeners.into_iter().enumerate() {
            let fake = Arc::clone(&fake);
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let fake = Arc::clone(&fake);
                    thread::spawn(move || fake.serve(number, stream));
                }
            });
        }
        fake
    }

    /// Where they are.
    pub(crate) fn addresses(&self) -> String {
        let all: Vec<_> = self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        all.join(",")
    }

    /// Ends with its client.
    fn serve(&self, number: usize, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let mut size = [0; 4];
            stream.read_exact(&mut size)?;
            let mut asked = vec![0; u32::from_be_bytes(size) as usize];
            stream.read_exact(&mut asked)?;
            let Some(said) = self.answer(number, &asked) else { continue };
            let said = [&asked[4..8], &said].concat();
            stream.write_all(&u32::try_from(said.len()).unwrap().to_be_bytes())?;
            stream.write_all(&said)?;
        }
    }

    /// What is asked: which question, in which version, a number that comes back, and from whom; then the body.
    fn answer(&self, number: usize, asked: &[u8]) -> Option<Vec<u8>> {
        let short = |at: usize| u16::from_be_bytes([asked[at], asked[at + 1]]);
        match short(0) {
            API_VERSIONS => Some(self.versions(short(2))),
            METADATA => Some(self.metadata(&asked[10 + usize::from(short(8))..])),
            _ => (self.says)(self, number, &asked[10 + usize::from(short(8))..]),
        }
    }

    /// Another version than 0 is answered by that one, with an error.
    fn versions(&self, version: u16) -> Vec<u8> {
        let mut said = if version == 0 { vec![0, 0] } else { UNSUPPORTED.to_be_bytes().to_vec() };
        said.extend([0, 0, 0, 3]);
        for (question, last) in [(METADATA, 1_u16), (API_VERSIONS, 0), (self.question, 0)] {
            said.extend(question.to_be_bytes());
            // From 0; of metadata from 1, which names the controller.
            said.extend(last.to_be_bytes());
            said.extend(last.to_be_bytes());
        }
        said
    }

    /// The servers and who is the controller; then the topics by the names that were asked for, none of which is there.
    fn metadata(&self, topics: &[u8]) -> Vec<u8> {
        let begins = self.begins.load(Ordering::SeqCst);
        let known: &[u16] = if begins { &[] } else { &self.ports };
        let controller = if begins { -1 } else { self.controller.load(Ordering::SeqCst) as i32 };
        let mut said = (known.len() as u32).to_be_bytes().to_vec();
        for (number, port) in known.iter().enumerate() {
            said.extend((number as u32).to_be_bytes());
            said.extend(text("127.0.0.1"));
            said.extend(u32::from(*port).to_be_bytes());
            // No rack.
            said.extend([255, 255]);
        }
        said.extend(controller.to_be_bytes());
        let (count, mut names) = topics.split_at(4);
        // Asked for all of them.
        let count = if count == [255; 4] { &[0; 4] } else { count };
        said.extend(count);
        while let [high, low, rest @ ..] = names {
            let (name, rest) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
            said.extend(UNKNOWN.to_be_bytes());
            said.extend([*high, *low]);
            said.extend(name);
            // Not Kafka's own, and no partitions.
            said.extend([0, 0, 0, 0, 0]);
            names = rest;
        }
        said
    }
}

/// A text as it is sent.
pub(crate) fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}
