//! What the daemon is deployed with, each held to the programs that will read it: the chart by helm, kubectl and the
//! schemas of Kubernetes' API, rules and alerts by promtool, the image by hadolint, the compose file by its schema; and
//! every configuration in them by `triaged check`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::outcomes::valid;
use crate::peers::daemon::{triaged, triaged_with};
use crate::peers::fetch;

const VALUES: [&str; 4] = ["minimal", "single", "full", "classify-only"];

/// A file of this checkout.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn text_of(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// The standard output of a command that must succeed.
#[track_caller]
fn succeeds(command: &mut Command) -> String {
    let output = run(command);
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}{error}", output.status);
    out.into_owned()
}

fn helm() -> Command {
    Command::new(fetch::helm())
}

fn values_file(name: &str) -> PathBuf {
    path("helm/ci").join(format!("{name}-values.yaml"))
}

/// What the chart renders, as objects.
#[track_caller]
fn rendered(values: &str, more: &[&str]) -> Vec<Value> {
    let folder = tempfile::tempdir().expect("the system has a temporary folder");
    let manifests = folder.path().join("manifests.yaml");
    let mut template = helm();
    template.args(["template", "soc", "--namespace", "triage"]).arg(path("helm")).args(["--values"]);
    fs::write(&manifests, succeeds(template.arg(values_file(values)).args(more))).expect("it can be written");
    // kubectl reads YAML as the API server does; nothing is patched.
    let mut kubectl = Command::new(fetch::kubectl());
    kubectl.args(["patch", "--local", "--type", "merge", "--patch", "{}", "--output", "json", "--filename"]);
    let objects = succeeds(kubectl.arg(&manifests));
    serde_json::Deserializer::from_str(&objects)
        .into_iter()
        .map(|object| object.expect("kubectl writes JSON"))
        .collect()
}

/// A YAML file as JSON, read by helm's parser.
#[track_caller]
pub(crate) fn yaml(name: &str) -> Value {
    let folder = tempfile::tempdir().expect("the system has a temporary folder");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("it can be written");
    fs::create_dir(folder.path().join("templates")).expect("the folder is new");
    write("Chart.yaml", "apiVersion: v2\nname: reader\nversion: 0.1.0\n");
    write("templates/file.yaml", "{{ .Files.Get \"file\" | fromYaml | toJson }}\n");
    write("file", &text_of(name));
    let out = succeeds(helm().args(["template", "reader"]).arg(folder.path()));
    let json = out.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{name} is no object: {out}"));
    let value: Value = serde_json::from_str(json).expect("helm writes JSON");
    assert!(value.get("Error").is_none(), "{name}: {value}");
    value
}

fn is(object: &Value, kind: &str) -> bool {
    object["kind"] == kind
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().expect("each object has a name")
}

fn named<'o>(objects: &'o [Value], kind: &str, wanted: &str) -> &'o Value {
    let found = objects.iter().find(|object| is(object, kind) && name(object) == wanted);
    found.unwrap_or_else(|| panic!("there is no {kind} {wanted}"))
}

/// The schema of an object's kind, with all that it refers to inside; `None` for kinds that are not Kubernetes' own.
fn kubernetes_schema(object: &Value) -> Option<jsonschema::Validator> {
    let kind = object["kind"].as_str().expect("a kind").to_lowercase();
    let version = object["apiVersion"].as_str().expect("a version");
    let file = match version.split_once('/') {
        Some((group, version)) => format!("{kind}-{}-{version}.json", group.split('.').next().unwrap_or(group)),
        None => format!("{kind}-{version}.json"),
    };
    let text = fs::read_to_string(fetch::kubernetes_schemas().join(file)).ok()?;
    let mut schema: Value = serde_json::from_str(&text.replace("/api/_definitions.json#", "#")).expect("it is JSON");
    let definitions = fetch::kubernetes_schemas().join("_definitions.json");
    let definitions = fs::read_to_string(definitions).expect("the definitions of all kinds");
    let mut definitions: Value = serde_json::from_str(&definitions).expect("they are JSON");
    let schema_parts = schema.as_object_mut().expect("a schema is an object");
    schema_parts.insert("$defs".to_owned(), definitions["$defs"].take());
    // Its own name would be the base of what it refers to.
    schema_parts.remove("$id");
    Some(jsonschema::validator_for(&schema).expect("Kubernetes' schemas are schemas"))
}

#[test]
fn the_chart_renders_what_kubernetes_takes() {
    let mut validators: BTreeMap<String, Option<jsonschema::Validator>> = BTreeMap::new();
    let mut foreign = BTreeSet::new();
    for values in VALUES {
        succeeds(helm().args(["lint", "--strict"]).arg(path("helm")).arg("--values").arg(values_file(values)));
        let objects = rendered(values, &[]);
        let mut seen = BTreeSet::new();
        for object in &objects {
            let kind = format!("{} {}", object["apiVersion"], object["kind"]);
            assert!(seen.insert(format!("{kind} {}", name(object))), "{values}: {kind} {} twice", name(object));
            match validators.entry(kind).or_insert_with(|| kubernetes_schema(object)) {
                Some(validator) => valid(validator, object),
                None => {
                    foreign.insert(object["kind"].as_str().expect("a kind").to_owned());
                }
            }
        }
        check_references(values, &objects);
    }
    // Kinds of the Prometheus operator and of KEDA, whose schemas are elsewhere.
    assert_eq!(foreign.into_iter().collect::<Vec<_>>(), ["PrometheusRule", "ScaledObject", "ServiceMonitor"]);
}

/// The labels of a workload's pods.
fn labels(workload: &Value) -> &Value {
    &workload["spec"]["template"]["metadata"]["labels"]
}

fn selects(selector: &Value, labels: &Value) -> bool {
    let selector = selector.as_object().expect("a selector has labels");
    !selector.is_empty() && selector.iter().all(|(label, value)| labels[label.as_str()] == *value)
}

/// What objects say of one another fits, and no pod may more than it needs.
fn check_references(values: &str, objects: &[Value]) {
    let workloads: Vec<&Value> = objects.iter().filter(|object| is(object, "Deployment")).collect();
    for workload in &workloads {
        let selected = selects(&workload["spec"]["selector"]["matchLabels"], labels(workload));
        assert!(selected, "{values}: {} selects its own pods", name(workload));
        let others =
            workloads.iter().filter(|other| selects(&workload["spec"]["selector"]["matchLabels"], labels(other)));
        assert_eq!(others.count(), 1, "{values}: {} selects no other pods", name(workload));
    }
    for object in objects {
        let (kind, spec) = (object["kind"].as_str().expect("a kind"), &object["spec"]);
        let selector = match kind {
            "Service" => &spec["selector"],
            "PodDisruptionBudget" | "ServiceMonitor" => &spec["selector"]["matchLabels"],
            "NetworkPolicy" => &spec["podSelector"]["matchLabels"],
            "HorizontalPodAutoscaler" | "ScaledObject" => {
                let target = named(objects, "Deployment", spec["scaleTargetRef"]["name"].as_str().expect("a name"));
                assert!(
                    target["spec"].get("replicas").is_none(),
                    "{values}: two would set the replicas of {}",
                    name(target)
                );
                continue;
            }
            "Deployment" | "Job" => {
                check_pod(values, objects, &spec["template"]["spec"]);
                continue;
            }
            _ => continue,
        };
        if kind == "ServiceMonitor" {
            assert!(
                objects.iter().any(|other| is(other, "Service") && selects(selector, &other["metadata"]["labels"]))
            );
        } else {
            assert!(
                workloads.iter().any(|workload| selects(selector, labels(workload))),
                "{values}: {kind} {}",
                name(object)
            );
        }
    }
}

fn check_pod(values: &str, objects: &[Value], pod: &Value) {
    assert_eq!(pod["automountServiceAccountToken"], false, "{values}");
    assert_eq!(pod["enableServiceLinks"], false, "{values}: TRIAGED_* variables are settings");
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{values}");
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{values}");
    let volumes: Vec<&str> =
        pod["volumes"].as_array().expect("volumes").iter().filter_map(|v| v["name"].as_str()).collect();
    for container in pod["containers"].as_array().expect("containers") {
        let security = &container["securityContext"];
        assert_eq!(security["readOnlyRootFilesystem"], true, "{values}");
        assert_eq!(security["allowPrivilegeEscalation"], false, "{values}");
        assert_eq!(security["capabilities"]["drop"][0], "ALL", "{values}");
        assert!(container["resources"]["limits"]["memory"].is_string(), "{values}: memory is limited");
        for mount in container["volumeMounts"].as_array().expect("mounts") {
            assert!(volumes.contains(&mount["name"].as_str().expect("a name")), "{values}: {mount} has a volume");
        }
        check_configuration(values, objects, pod, container);
    }
}

/// `triaged check` takes the configuration that a container will find: its file and its variables.
fn check_configuration(values: &str, objects: &[Value], pod: &Value, container: &Value) {
    let folder = tempfile::tempdir().expect("the system has a temporary folder");
    let volumes = pod["volumes"].as_array().expect("volumes");
    let config = volumes.iter().find(|volume| volume["name"] == "config").expect("the configuration's volume");
    let config = named(objects, "ConfigMap", config["configMap"]["name"].as_str().expect("a name"));
    for (name, text) in config["data"].as_object().expect("files") {
        fs::write(folder.path().join(name), text.as_str().expect("text")).expect("it can be written");
    }
    let mut variables = Vec::new();
    for variable in container["env"].as_array().expect("variables") {
        let name = variable["name"].as_str().expect("a name");
        // What comes from a Secret is some text.
        variables.push((name.to_owned(), variable["value"].as_str().unwrap_or("from-a-secret").to_owned()));
    }
    let file = folder.path().join("triaged.toml");
    // Warnings are for a person: a topic that nobody reads, for example.
    let output = triaged_with(&["check", "--config", file.to_str().expect("a plain path")], &variables);
    assert!(output.status.success(), "{values}: {}", String::from_utf8_lossy(&output.stdout));
    let arguments: Vec<&str> =
        container["args"].as_array().expect("arguments").iter().filter_map(Value::as_str).collect();
    assert_eq!(arguments[1..3], ["--config", "/etc/triaged/triaged.toml"], "{values}");
    let help = triaged(&[arguments[0], "--help"]);
    assert!(help.status.success(), "{values}: there is a command {}", arguments[0]);
    if let Some(roles) = arguments.get(4) {
        let help = String::from_utf8_lossy(&help.stdout).into_owned();
        for role in roles.split(',') {
            assert!(help.contains(role), "{values}: there is a role {role}");
        }
    }
}

#[test]
fn a_changed_configuration_rolls_the_pods_and_a_mistyped_value_is_refused() {
    let checksum = |objects: &[Value]| {
        let workload = named(objects, "Deployment", "soc-triaged-classify");
        workload["spec"]["template"]["metadata"]["annotations"]["checksum/config"].clone()
    };
    let before = checksum(&rendered("minimal", &[]));
    assert!(before.as_str().is_some_and(|text| text.len() == 64), "{before}");
    assert_ne!(checksum(&rendered("minimal", &["--set", "config=[log]"])), before);
    assert_ne!(checksum(&rendered("minimal", &["--set", "files.rules\\.toml=x"])), before);
    assert_eq!(checksum(&rendered("minimal", &["--set-string", "image.tag=2"])), before);
    for (wrong, why) in [
        ("kafka.broker=kafka:9092", "additional properties 'broker' not allowed"),
        ("kafka.brokers=", "/kafka/brokers"),
        ("kafka.properties.sasl\\.password=hunter2", "invalid propertyName 'sasl.password'"),
        ("clickhouse.url=tcp://clickhouse:9000", "/clickhouse/url"),
        ("roles.classify.replicas=many", "/roles/classify/replicas"),
        ("roles.classify.autoscaling.type=magic", "/roles/classify/autoscaling/type"),
        ("mode=both", "/mode"),
    ] {
        let output = run(helm()
            .args(["template", "soc"])
            .arg(path("helm"))
            .arg("--values")
            .arg(values_file("minimal"))
            .args(["--set", wrong]));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(why), "{wrong}: {error}");
    }
    let none = [
        "--set",
        "roles.classify.enabled=false",
        "--set",
        "roles.tally.enabled=false",
        "--set",
        "roles.forecast.enabled=false",
        "--set",
        "roles.incidents.enabled=false",
    ];
    let output =
        run(helm().args(["template", "soc"]).arg(path("helm")).arg("--values").arg(values_file("minimal")).args(none));
    assert!(String::from_utf8_lossy(&output.stderr).contains("at least one of roles.*.enabled"), "{output:?}");
}

#[test]
fn the_notes_tell_what_to_do_next() {
    for values in VALUES {
        let mut install = helm();
        // No cluster is asked.
        install.env("KUBECONFIG", "/dev/null").args(["install", "soc", "--dry-run=client"]).arg(path("helm"));
        let out = succeeds(install.arg("--values").arg(values_file(values)));
        let notes = out.split_once("\nNOTES:\n").unwrap_or_else(|| panic!("{values}: there are no notes: {out}")).1;
        for told in ["rollout status", "/health/ready", "Topics are not created"] {
            assert!(notes.contains(told), "{values}: {told} in {notes}");
        }
        assert!(!notes.contains("<no value>"), "{values}: {notes}");
        assert_eq!(notes.contains("keeps volumes"), values != "classify-only", "{values}: {notes}");
    }
}

#[test]
fn the_chart_s_network_policy_and_rules_follow_from_its_values() {
    let objects = rendered("full", &[]);
    let policy = named(&objects, "NetworkPolicy", "soc-triaged");
    let ports = policy["spec"]["egress"][1]["ports"].as_array().expect("ports").iter();
    let ports: Vec<u64> = ports.filter_map(|port| port["port"].as_u64()).collect();
    assert_eq!(ports, [9093, 9094, 443, 8000], "of the brokers, of https and of the LLM");
    let rule = named(&objects, "PrometheusRule", "soc-triaged");
    let folder = tempfile::tempdir().expect("the system has a temporary folder");
    let file = folder.path().join("rules.json");
    fs::write(&file, rule["spec"].to_string()).expect("it can be written");
    succeeds(Command::new(fetch::promtool()).args(["check", "rules"]).arg(&file));
    let groups = |rules: &Value| rules["groups"].as_array().expect("groups").clone();
    let shipped =
        [groups(&yaml("config/prometheus/rules.yml")), groups(&yaml("config/prometheus/alerts.yml"))].concat();
    assert_eq!(groups(&rule["spec"]), shipped, "the chart's rules are those of config/prometheus");
    for board in ["operations", "queues", "quality", "incidents"] {
        let map = named(&objects, "ConfigMap", &format!("soc-triaged-dashboard-{board}"));
        let text = map["data"][format!("{board}.json")].as_str().expect("the dashboard");
        let found: Value = serde_json::from_str(text).expect("it is JSON");
        let shipped: Value =
            serde_json::from_str(&text_of(&format!("config/grafana/dashboards/{board}.json"))).expect("JSON");
        assert_eq!(found, shipped, "{board}");
    }
    let scaled = named(&objects, "ScaledObject", "soc-triaged-classify");
    assert_eq!(scaled["spec"]["triggers"][0]["metadata"]["consumerGroup"], "soc-classify");
}

/// Escalations wait for the role that decides them, so one switch does both.
#[test]
fn the_chart_runs_the_escalate_role_and_sends_it_records() {
    let variable = |workload: &Value, name: &str| {
        let variables = workload["spec"]["template"]["spec"]["containers"][0]["env"].as_array().expect("variables");
        variables.iter().find(|variable| variable["name"] == name).cloned()
    };
    let escalates = |workload: &Value| variable(workload, "TRIAGED_OUTPUT__ESCALATE").map(|one| one["value"].clone());
    let roles = |workload: &Value| workload["spec"]["template"]["spec"]["containers"][0]["args"][4].clone();

    let objects = rendered("full", &[]);
    let workloads: Vec<&Value> = objects.iter().filter(|object| is(object, "Deployment")).collect();
    assert_eq!(workloads.len(), 5);
    for workload in &workloads {
        assert_eq!(escalates(workload), Some("true".into()), "{}", name(workload));
    }
    let escalate = named(&objects, "Deployment", "soc-triaged-escalate");
    assert_eq!(roles(escalate), "escalate");
    let key = variable(escalate, "TRIAGED_ESCALATE__LLM__API_KEY").expect("the key");
    assert_eq!(key["valueFrom"]["secretKeyRef"]["name"], "llm-credentials");
    let trigger = &named(&objects, "ScaledObject", "soc-triaged-escalate")["spec"]["triggers"][0]["metadata"];
    assert_eq!((&trigger["consumerGroup"], &trigger["topic"]), (&"soc-escalate".into(), &"escalations".into()));
    named(&objects, "PodDisruptionBudget", "soc-triaged-escalate");

    let all = rendered("single", &[]);
    let all = named(&all, "Deployment", "soc-triaged-all");
    assert_eq!(
        (roles(all), escalates(all)),
        ("classify,escalate,forecast,incidents,tally".into(), Some("true".into()))
    );
    let minimal = rendered("minimal", &[]);
    assert_eq!(escalates(named(&minimal, "Deployment", "soc-triaged-classify")), None, "nobody would decide them");

    let mut template = helm();
    template.args(["template", "soc"]).arg(path("helm")).arg("--values").arg(values_file("minimal"));
    let error = run(template.args(["--set", "roles.escalate.enabled=true"])).stderr;
    let error = String::from_utf8_lossy(&error).into_owned();
    assert!(error.contains("needs escalation.encoder or escalation.llm.enabled"), "{error}");
}

#[test]
fn the_chart_offers_the_api_only_with_keys() {
    let objects = rendered("full", &[]);
    let container =
        |workload: &str| named(&objects, "Deployment", workload)["spec"]["template"]["spec"]["containers"][0].clone();
    let listens = |workload: &str| {
        let container = container(workload);
        let variables = container["env"].as_array().expect("variables");
        let listen = variables.iter().find(|variable| variable["name"] == "TRIAGED_API__LISTEN");
        listen.map(|variable| variable["value"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(listens("soc-triaged-classify").as_deref(), Some("0.0.0.0:9465"));
    assert_eq!(listens("soc-triaged-tally").as_deref(), Some(""), "it need not load models");
    let mounts = container("soc-triaged-classify")["volumeMounts"].to_string();
    assert!(mounts.contains("/etc/triaged-keys"), "{mounts}");
    let ports = |object: &Value| object["spec"]["ports"].as_array().expect("ports").len();
    assert_eq!(ports(named(&objects, "Service", "soc-triaged")), 2);
    let policy = named(&objects, "NetworkPolicy", "soc-triaged");
    assert_eq!(policy["spec"]["ingress"][1]["ports"][0]["port"], "api");

    let minimal = rendered("minimal", &[]);
    assert_eq!(ports(named(&minimal, "Service", "soc-triaged")), 1);
    let mut template = helm();
    template.args(["template", "soc"]).arg(path("helm")).arg("--values").arg(values_file("minimal"));
    let error = run(template.args(["--set", "api.enabled=true"])).stderr;
    let error = String::from_utf8_lossy(&error).into_owned();
    assert!(error.contains("api.enabled needs api.keysSecret.name"), "{error}");
}

#[test]
fn rules_and_alerts_hold_in_their_own_tests() {
    let promtool = || Command::new(fetch::promtool());
    succeeds(
        promtool()
            .args(["check", "rules", "--lint-fatal"])
            .arg(path("config/prometheus/rules.yml"))
            .arg(path("config/prometheus/alerts.yml")),
    );
    succeeds(promtool().args(["check", "config", "--syntax-only"]).arg(path("config/prometheus/prometheus.yml")));
    succeeds(promtool().args(["test", "rules"]).arg(path("config/prometheus/tests/alerts.yml")));
    let tests = text_of("config/prometheus/tests/alerts.yml");
    for group in yaml("config/prometheus/alerts.yml")["groups"].as_array().expect("groups") {
        for rule in group["rules"].as_array().expect("rules") {
            let alert = rule["alert"].as_str().expect("an alert's name");
            assert!(tests.contains(&format!("alertname=\"{alert}\", alertstate=\"firing\"")), "{alert} is not tested");
            let severity = rule["labels"]["severity"].as_str().expect("a severity");
            assert!(["critical", "warning", "info"].contains(&severity), "{alert}: {severity}");
            for annotation in ["summary", "description", "runbook"] {
                assert!(
                    rule["annotations"][annotation].as_str().is_some_and(|text| text.len() > 10),
                    "{alert}: {annotation}"
                );
            }
        }
    }
}

#[test]
fn the_compose_file_is_whole_and_holds_no_password() {
    let compose = yaml("docker-compose.yml");
    let mut schema: Value =
        serde_json::from_str(&fs::read_to_string(fetch::compose_schema()).expect("the schema is there")).expect("JSON");
    // A relative name cannot be the base of what it refers to.
    schema.as_object_mut().expect("a schema is an object").remove("$id");
    valid(&jsonschema::validator_for(&schema).expect("a schema"), &compose);

    let text = text_of("docker-compose.yml");
    let example = text_of(".env.example");
    let variable = regex::Regex::new(r"\$\{([A-Z_]+)").expect("a pattern");
    for found in variable.captures_iter(&text) {
        assert!(example.contains(&format!("\n{}=", &found[1])), "{} is not in .env.example", &found[1]);
    }
    for line in example.lines().filter(|line| line.contains("PASSWORD") && !line.starts_with('#')) {
        assert!(line.ends_with('='), "{line}");
    }
    let services = compose["services"].as_object().expect("services");
    for (name, service) in services {
        let image = service["image"].as_str().expect("an image");
        let tag = image.rsplit_once(':').expect("a tag").1;
        assert!(tag != "latest" && !tag.is_empty(), "{name}: {image}");
        assert!(service["deploy"]["resources"]["limits"]["memory"].is_string(), "{name}: its memory is limited");
        let ends = service["restart"] == "no";
        let checked = service.get("healthcheck").is_some() || image.starts_with("triaged:");
        assert!(ends || checked, "{name}: nothing asks for its health");
        for (variable, value) in service["environment"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            assert!(
                !variable.contains("PASSWORD") || value.starts_with("${") && value.contains(":?"),
                "{name}: {variable}"
            );
        }
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let (source, _) = volume.as_str().expect("the short form").split_once(':').expect("a target");
            let there = match source.strip_prefix("./") {
                Some(file) => path(file).exists(),
                None => compose["volumes"].get(source).is_some(),
            };
            assert!(there, "{name}: {source} is not there");
        }
        for other in service["depends_on"].as_object().into_iter().flat_map(|others| others.keys()) {
            assert!(services.contains_key(other), "{name} waits for {other}");
        }
    }

    let environment = services["triaged"]["environment"].as_object().expect("variables").iter();
    let environment: Vec<(String, String)> =
        environment.map(|(name, value)| (name.clone(), value.as_str().expect("text").to_owned())).collect();
    let output = triaged_with(&["check", "--strict"], &environment);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    // Every topic of the default configuration is created.
    let script = services["topics"]["command"][0].as_str().expect("a script");
    let own = ["queue-events", "escalations", "dead-letters", "forecasts", "anomalies", "drift"];
    let people = ["feedback", "incidents", "incident-updates"];
    for topic in ["tickets", "logs"].into_iter().chain(own).chain(people) {
        assert!(script.contains(&format!("create {topic} ")), "{topic}");
    }
}

#[test]
fn the_image_has_no_fault_that_a_linter_knows() {
    succeeds(Command::new(fetch::hadolint()).arg(path("Dockerfile")));
    let dockerfile = text_of("Dockerfile");
    for part in ["\nUSER 65532:65532\n", "CMD [\"/usr/local/bin/triaged\", \"health\"]", "--locked"] {
        assert!(dockerfile.contains(part), "{part}");
    }
}

#[test]
fn what_grafana_and_clickhouse_are_given_is_well_formed() {
    let sources = yaml("config/grafana/provisioning/datasources/triaged.yml");
    let kinds: Vec<&str> = sources["datasources"]
        .as_array()
        .expect("sources")
        .iter()
        .filter_map(|source| source["type"].as_str())
        .collect();
    assert_eq!(kinds, ["prometheus", "grafana-clickhouse-datasource"]);
    let providers = yaml("config/grafana/provisioning/dashboards/triaged.yml");
    let mounted = text_of("docker-compose.yml");
    let folder = providers["providers"][0]["options"]["path"].as_str().expect("a folder");
    assert!(mounted.contains(&format!("./config/grafana/dashboards:{folder}:ro")), "{folder}");
    for file in ["metrics.xml", "grafana-user.xml"] {
        let file = path("config/clickhouse").join(file);
        let parse =
            "import sys, xml.etree.ElementTree as tree; assert tree.parse(sys.argv[1]).getroot().tag == 'clickhouse'";
        succeeds(Command::new("python3").args(["-c", parse]).arg(file));
    }
}
