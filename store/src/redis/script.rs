//! Scripts, called by their hash and loaded where the server does not know them.

use super::error::{ErrorKind, Result};
use ::redis::{Cmd, Pipeline, ToRedisArgs, Value, cmd};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// A script in Lua. Make it once and keep it: its hash is computed when it is made.
#[derive(Clone, Debug)]
pub struct Script {
    body: Arc<str>,
    hash: Arc<str>,
}

impl Script {
    /// A script from its text.
    #[must_use]
    pub fn new(body: &str) -> Self {
        Self { body: body.into(), hash: ::redis::Script::new(body).get_hash().into() }
    }

    /// What a server knows it by.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The call of it, by hash, with these keys and arguments. It can stand in a pipeline.
    #[must_use]
    pub fn call<K: ToRedisArgs, A: ToRedisArgs>(&self, keys: &[K], args: &[A]) -> Cmd {
        let mut command = cmd("EVALSHA");
        command.arg(&*self.hash).arg(keys.len());
        for key in keys {
            command.arg(key);
        }
        for arg in args {
            command.arg(arg);
        }
        command
    }
}

/// The scripts that were introduced, by hash.
#[derive(Debug, Default)]
pub(super) struct Scripts(Mutex<HashMap<Arc<str>, Arc<str>>>);

impl Scripts {
    pub(super) fn introduce(&self, script: &Script) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(Arc::clone(&script.hash)).or_insert_with(|| Arc::clone(&script.body));
    }

    /// The calls of a pipeline that failed because the server did not know their script: their places, and the calls in full.
    pub(super) fn missing(&self, commands: &Pipeline, results: &[Result<Value>]) -> Vec<(usize, Cmd)> {
        let unknown =
            |result: &Result<Value>| result.as_ref().is_err_and(|error| error.kind() == ErrorKind::NoScript);
        let mut calls = Vec::new();
        for (place, (command, result)) in commands.cmd_iter().zip(results).enumerate() {
            if unknown(result) {
                calls.extend(self.in_full(command).map(|full| (place, full)));
            }
        }
        calls
    }

    /// The same call with the script's text, which the server keeps from then on. `None` where it is no call of a script that is known.
    pub(super) fn in_full(&self, call: &Cmd) -> Option<Cmd> {
        let mut args = call.args_iter();
        let (name, hash) = (args.next()?, args.next()?);
        let (::redis::Arg::Simple(b"EVALSHA"), ::redis::Arg::Simple(hash)) = (name, hash) else {
            return None;
        };
        let body = {
            let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(known.get(std::str::from_utf8(hash).ok()?)?)
        };
        let mut full = cmd("EVAL");
        full.arg(&*body);
        for arg in args {
            if let ::redis::Arg::Simple(arg) = arg {
                full.arg(arg);
            }
        }
        Some(full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_by_hash_is_written_out_where_the_script_is_known() {
        let script = Script::new("return ARGV[1]");
        let call = script.call(&["k"], &[1, 2]);
        let scripts = Scripts::default();
        assert!(scripts.in_full(&call).is_none());
        scripts.introduce(&script);
        let mut expected = cmd("EVAL");
        expected.arg("return ARGV[1]").arg(1).arg("k").arg(1).arg(2);
        assert_eq!(scripts.in_full(&call).unwrap().get_packed_command(), expected.get_packed_command());
        assert!(scripts.in_full(cmd("GET").arg("k")).is_none());
        assert_eq!(&*script.hash, "098e0f0d1448c0a81dafe820f66d460eb09263da");
    }
}
