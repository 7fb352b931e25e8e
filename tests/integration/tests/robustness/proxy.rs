//! A TCP proxy between a server and its store that does what networks and disks do.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// What happens to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weather {
    /// They arrive.
    Fair,
    /// They arrive late, as with a slow disk.
    Slow(Duration),
    /// They do not arrive, and nobody is told.
    Frozen,
    /// What the client sends arrives, what it is told is lost.
    Deaf,
    /// Connections are closed, new ones too.
    Cut,
}

/// The proxy. Ends when dropped.
pub(super) struct Proxy {
    port: u16,
    weather: watch::Sender<Weather>,
}

impl Proxy {
    /// Passes connections on to a port of the loopback address.
    pub(super) async fn to(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (weather, current) = watch::channel(Weather::Fair);
        tokio::spawn(async move {
            let mut ended = current.clone();
            let closed = async move { while ended.changed().await.is_ok() {} };
            tokio::select! {
                () = closed => {}
                () = accept(listener, target, current) => {}
            }
        });
        Self { port, weather }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

async fn accept(listener: TcpListener, target: u16, weather: watch::Receiver<Weather>) {
    while let Ok((near, _)) = listener.accept().await {
        if *weather.borrow() == Weather::Cut {
            continue;
        }
        let weather = weather.clone();
        tokio::spawn(async move {
            let Ok(far) = TcpStream::connect(("127.0.0.1", target)).await else { return };
            // Delays are ours alone.
            if near.set_nodelay(true).and(far.set_nodelay(true)).is_err() {
                return;
            }
            let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
            tokio::select! {
                () = pass(near_read, far_write, weather.clone(), false) => {}
                () = pass(far_read, near_write, weather, true) => {}
            }
        });
    }
}

/// Passes bytes on until one side or the weather ends it.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut weather: watch::Receiver<Weather>, is_answer: bool) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let current = *weather.borrow_and_update();
        match current {
            Weather::Cut => return,
            Weather::Frozen => {
                if weather.changed().await.is_err() {
                    return;
                }
                continue;
            }
            Weather::Fair | Weather::Slow(_) | Weather::Deaf => {}
        }
        let read = tokio::select! {
            changed = weather.changed() => if changed.is_err() { return } else { continue },
            read = from.read(&mut buffer) => read,
        };
        let Ok(count @ 1..) = read else { return };
        match current {
            Weather::Slow(delay) => tokio::time::sleep(delay).await,
            Weather::Deaf if is_answer => continue,
            _ => {}
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
