//! Hosts, user and password of a URL.
//!
//! Not here: what follows the `?` (`mod.rs`).

use super::invalid;
use crate::{BrokerUrl, Result};
use percent_encoding::percent_decode_str;

/// The port of a host that names none.
const PORT: u16 = 9092;

/// What stands between the scheme and the `?`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Authority {
    /// As `host:port`.
    pub(super) servers: Vec<String>,
    /// User and password.
    pub(super) login: Option<(String, String)>,
}

/// The hosts, the user and the password.
///
/// # Errors
/// `Invalid` that says what is wrong. It repeats hosts, and nothing of what may be a password.
pub(super) fn of_url(url: &BrokerUrl) -> Result<Authority> {
    let scheme = &url.scheme;
    let rest = url.raw.split_once(':').map_or("", |(_, rest)| rest);
    let rest = rest.split_once('?').map_or(rest, |(path, _)| path);
    let shape = || invalid(format!("a URL of {scheme} looks like {scheme}://HOST:9092,HOST:9092"));
    let rest = rest.strip_prefix("//").ok_or_else(shape)?;
    // A password may have an `@` that nobody encoded.
    let (userinfo, hosts) = match rest.rsplit_once('@') {
        Some((userinfo, hosts)) => (Some(userinfo), hosts),
        None => (None, rest),
    };
    let hosts = hosts.strip_suffix('/').unwrap_or(hosts);
    if hosts.contains('/') {
        return Err(invalid(format!(
            "in a URL of {scheme} nothing stands behind the hosts but parameters; a `/` in a password is written `%2F`"
        )));
    }
    let servers = hosts.split(',').map(|host| server(scheme, host, userinfo.is_some()));
    Ok(Authority {
        servers: servers.collect::<Result<_>>()?,
        login: userinfo.map(|userinfo| login(scheme, userinfo)).transpose()?,
    })
}

/// A host with its port.
fn server(scheme: &str, text: &str, secret: bool) -> Result<String> {
    let wrong = || {
        // What stands there may be a part of a password.
        let shown = if secret { "a host".to_owned() } else { format!("{text:?}") };
        invalid(format!(
            "{shown} of the {scheme} URL is no host: write HOST:PORT, or [ADDRESS]:PORT for IPv6"
        ))
    };
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            (format!("[{address}]"), port.strip_prefix(':').or_else(|| port.is_empty().then_some("")))
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host.to_owned(), Some(port)),
            None => (text.to_owned(), Some("")),
        },
    };
    let inner = host.trim_matches(['[', ']']);
    let is_host = |c: char| c.is_ascii_alphanumeric() || ".-_:%".contains(c);
    if inner.is_empty() || !inner.chars().all(is_host) {
        return Err(wrong());
    }
    match port {
        Some("") => Ok(format!("{host}:{PORT}")),
        Some(port) => match port.parse::<u16>() {
            Ok(port) if port > 0 => Ok(format!("{host}:{port}")),
            _ => Err(wrong()),
        },
        None => Err(wrong()),
    }
}

/// User and password.
fn login(scheme: &str, userinfo: &str) -> Result<(String, String)> {
    let decode = |text: &str| {
        let text = percent_decode_str(text).decode_utf8();
        let text = text.map_err(|_| invalid(format!("user or password of the {scheme} URL is not UTF-8")))?;
        if text.contains('\0') {
            return Err(invalid(format!("user or password of the {scheme} URL has a NUL byte")));
        }
        Ok(text.into_owned())
    };
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    if user.is_empty() || password.is_empty() {
        return Err(invalid(format!("user and password go together: {scheme}://USER:PASSWORD@HOST:9092")));
    }
    Ok((decode(user)?, decode(password)?))
}
