//! Programs that know nothing of Ropeway: a Python with confluent-kafka, Kafka's own tools, kcat.
//!
//! The first two are fetched from their registries into `target/`, where that can be done. Not here: what is asked of them (`clients.rs`,
//! `doctor.rs`).

use std::{
    env, fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

/// For how long a program may run.
const LONGEST: Duration = Duration::from_secs(60);

fn place(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Why a program failed, in a line.
fn ran(program: &str, args: &[&str]) -> Result<(), String> {
    match Command::new(program).args(args).stdin(Stdio::null()).output() {
        Ok(ran) if ran.status.success() => Ok(()),
        Ok(ran) => {
            let said = [ran.stderr, ran.stdout].concat();
            let said = String::from_utf8_lossy(&said);
            let first = said.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
            Err(format!("{program}: {first}"))
        }
        Err(error) => Err(format!("{program}: {error}")),
    }
}

/// One at a time fetches: two would write into one place.
static FETCHING: Mutex<()> = Mutex::new(());

/// A Python that has confluent-kafka.
pub(crate) fn python() -> Result<PathBuf, String> {
    let _fetching = FETCHING.lock().unwrap_or_else(PoisonError::into_inner);
    let place = place("confluent-kafka");
    let python = place.join("bin/python");
    let (folder, own) = (place.display().to_string(), python.display().to_string());
    let has = || ran(&own, &["-c", "import confluent_kafka"]);
    if has().is_ok() {
        return Ok(python);
    }
    ran("python3", &["-m", "venv", &folder])
        .and_then(|()| ran(&own, &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "confluent-kafka>=2.6,<3"]))
        .and_then(|()| has())
        .map_err(|why| format!("no confluent-kafka: {why}; install python3 with venv and pip, and allow it to reach the Python registry"))?;
    Ok(python)
}

/// Kafka's own tools.
pub(crate) struct Tools {
    java: PathBuf,
    class_path: String,
}

impl Tools {
    /// Fetches them by Maven, where they are not there yet.
    pub(crate) fn fetch() -> Result<Self, String> {
        const PLUGIN: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:build-classpath";
        let _fetching = FETCHING.lock().unwrap_or_else(PoisonError::into_inner);
        let place = place("kafka-tools");
        let list = place.join("classpath");
        let known = || {
            let list = fs::read_to_string(&list).unwrap_or_default().trim().to_owned();
            (!list.is_empty() && env::split_paths(&list).all(|jar| jar.is_file())).then_some(list)
        };
        if known().is_none() {
            fs::create_dir_all(&place).map_err(|error| error.to_string())?;
            let pom = place.join("pom.xml");
            fs::write(&pom, include_str!("tools.xml")).map_err(|error| error.to_string())?;
            let words = [
                "--batch-mode".to_owned(),
                "--no-transfer-progress".to_owned(),
                PLUGIN.to_owned(),
                format!("-Dmaven.repo.local={}", place.join("repository").display()),
                format!("-Dmdep.outputFile={}", list.display()),
                "-DincludeScope=runtime".to_owned(),
                "-Dstyle.color=never".to_owned(),
                "-f".to_owned(),
                pom.display().to_string(),
            ];
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            ran("mvn", &words).map_err(|why| {
                format!("no tools of Kafka: {why}; install maven, and allow it to reach its registry")
            })?;
        }
        let class_path = known().ok_or("no tools of Kafka: Maven fetched them, and made no list")?;
        let home = env::var_os("JAVA_HOME").map(|home| PathBuf::from(home).join("bin/java"));
        let java = home.filter(|java| java.is_file()).unwrap_or_else(|| "java".into());
        ran(&java.display().to_string(), &["-version"]).map_err(|why| format!("no java: {why}"))?;
        Ok(Self { java, class_path })
    }

    /// Runs a tool, as `kafka-configs.sh`, with what it reads. What it prints, and how it ended.
    pub(crate) fn run(&self, tool: &str, args: &[&str], input: &str) -> String {
        let class = match tool {
            "kafka-configs.sh" => "kafka.admin.ConfigCommand",
            "kafka-console-consumer.sh" => "org.apache.kafka.tools.consumer.ConsoleConsumer",
            "kafka-console-producer.sh" => "org.apache.kafka.tools.ConsoleProducer",
            "kafka-consumer-groups.sh" => "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
            "kafka-topics.sh" => "org.apache.kafka.tools.TopicCommand",
            other => panic!("which class is {other}?"),
        };
        let mut command = Command::new(&self.java);
        command
            .args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", &self.class_path, class])
            .args(args);
        output(command, tool, input)
    }
}

/// Whether kcat is here.
pub(crate) fn kcat() -> Result<(), String> {
    ran("kcat", &["-V"]).map_err(|why| format!("no kcat: {why}; install it (apt-get install kcat)"))
}

/// What a program prints that must end well, and soon.
pub(crate) fn output(mut command: Command, name: &str, input: &str) -> String {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.as_bytes().to_vec();
    let writing = std::thread::spawn(move || stdin.write_all(&input));
    let (id, (told, ended)) = (child.id(), mpsc::channel::<()>());
    let watching = std::thread::spawn(move || {
        if ended.recv_timeout(LONGEST) == Err(RecvTimeoutError::Timeout) {
            // It is not waited for yet, so the number is still its own.
            _ = Command::new("kill").args(["-9", &id.to_string()]).status();
        }
    });
    let ran = child.wait_with_output().unwrap();
    drop(told);
    watching.join().unwrap();
    _ = writing.join();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{name}: {}: {said}{}", ran.status, String::from_utf8_lossy(&ran.stdout));
    String::from_utf8(ran.stdout).unwrap()
}
