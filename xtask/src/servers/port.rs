//! Free ports on loopback.

use std::{io, net::TcpListener};

/// `N` ports that were free a moment ago, all different. Another process may take one meanwhile: who starts a server looks whether it is its own
/// that answers, and takes other ports if not.
pub(crate) fn free<const N: usize>() -> io::Result<[u16; N]> {
    let mut ports = [0; N];
    let mut held = Vec::with_capacity(N);
    for port in &mut ports {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ() {
        let [a, b, c] = free().unwrap();
        assert!(a != b && b != c && a != c && a > 0);
    }
}
