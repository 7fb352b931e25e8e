//! Inputs that make sense: the objects of the enumeration, in every encoding, and texts of each small language.

use serde::Deserialize;
use serde_json::{Value, json};

/// An object of every kind.
const OBJECTS: &str = include_str!("../../integration/tests/api/enumeration/objects.yaml");

/// The objects, with a little more that merging is about.
pub fn objects() -> Vec<Value> {
    let documents =
        serde_yaml::Deserializer::from_str(OBJECTS).filter_map(|document| Value::deserialize(document).ok());
    let mut objects: Vec<Value> = documents.collect();
    for object in &mut objects {
        object["metadata"]["labels"] = json!({"a": "b"});
        object["metadata"]["finalizers"] = json!(["example.com/f"]);
    }
    objects.push(pod());
    objects
}

/// A Pod with lists of all merging kinds.
fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default", "ownerReferences": [
            {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u", "controller": true}]},
        "spec": {
            "containers": [
                {"name": "a", "image": "i:1", "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom":
                    {"fieldRef": {"fieldPath": "metadata.name"}}}], "ports": [{"containerPort": 80, "protocol": "TCP"}],
                 "livenessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1},
                 "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}, "volumeMounts": [{"name": "v", "mountPath": "/v"}]},
                {"name": "b", "image": "i:2", "securityContext": {"capabilities": {"add": ["X"]}}}],
            "initContainers": [{"name": "i", "image": "i:1", "restartPolicy": "Always"}],
            "volumes": [{"name": "v", "projected": {"sources": [{"configMap": {"name": "c"}}]}},
                {"name": "w", "emptyDir": {"sizeLimit": "1Gi"}}],
            "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}],
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "k", "operator": "Gt", "values": ["1"]}]}]}}},
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": {"a": "b"}}}],
        },
    })
}

fn texts(all: &[&str]) -> Vec<Vec<u8>> {
    all.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Objects as JSON.
pub fn json_objects() -> Vec<Vec<u8>> {
    objects().iter().map(|object| object.to_string().into_bytes()).collect()
}

/// Objects as YAML, in two styles.
pub fn yaml_objects() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> =
        objects().iter().filter_map(|o| serde_yaml::to_string(o).ok()).map(String::into_bytes).collect();
    all.extend(texts(&[
        OBJECTS,
        "a: &a [1, 0x10, 0o7, 1_000, .5, ~, yes]\nb: *a\n<<: {c: |\n  d\n}\n",
        "{a: !!str 1, ? b : c}",
    ]));
    all
}

/// Objects as protobuf.
pub fn protobuf_objects() -> Vec<Vec<u8>> {
    objects().iter().filter_map(|object| api::encode::encode(object).ok()).collect()
}

/// Patches, each after a byte that chooses the object.
pub fn patches() -> Vec<Vec<u8>> {
    let last = u8::try_from(objects().len() - 1).unwrap_or_default();
    let all = [
        json!([{"op": "add", "path": "/metadata/labels/x", "value": "y"}, {"op": "test", "path": "/kind", "value": "Pod"}]),
        json!([{"op": "move", "from": "/spec/containers/0", "path": "/spec/containers/-"}, {"op": "copy", "from": "",
            "path": "/metadata/annotations"}, {"op": "remove", "path": "/spec"}, {"op": "replace", "path": "", "value": 1}]),
        json!({"metadata": {"labels": {"a": null, "c": "d"}, "finalizers": ["x"]}, "spec": null}),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["example.com/f"]}, "spec": {
            "containers": [{"name": "a", "image": "j"}, {"name": "b", "$patch": "delete"}],
            "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
            "volumes": [{"name": "w", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}]}}),
        json!({"spec": {"$patch": "replace", "containers": []}}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "a",
            "ports": [{"containerPort": 80, "protocol": "UDP"}]}]}}),
    ];
    let with_object = |number: u8, patch: &Value| [vec![number], patch.to_string().into_bytes()].concat();
    all.iter().flat_map(|patch| [with_object(last, patch), with_object(28, patch)]).collect()
}

/// Label selectors.
pub fn label_selectors() -> Vec<Vec<u8>> {
    texts(&["a=b,c!=d", "a in (b,c),d notin (e),!f,g", "x.io/a==b", "a>1,b<2", "a in ()", ""])
}

/// Field selectors.
pub fn field_selectors() -> Vec<Vec<u8>> {
    texts(&["metadata.name=a,status.phase!=Running", r"a\,b=c\=d\\", "a==b", ""])
}

/// Quantities.
pub fn quantities() -> Vec<Vec<u8>> {
    texts(&["1", "100m", "1.5Gi", "-3e6", "0.000000001", "9223372036854775807", "1Ei", "5n", "12E", "1e-3", "+.5k"])
}

/// Times and spans.
pub fn times() -> Vec<Vec<u8>> {
    texts(&[
        "2026-01-01T00:00:00Z",
        "2026-12-31T23:59:60.123456+14:00",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "1h2m3.5s",
        "-1.5h",
        "100ns",
        "1us",
        "2562047h47m16.854775807s",
        "0",
    ])
}

/// Continue tokens.
pub fn tokens() -> Vec<Vec<u8>> {
    let mut all = texts(&["", "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhIn0"]);
    all.extend(
        [(1, "a/b\0"), (i64::MAX, "../x"), (-1, "é")]
            .map(|(at, key)| machinery::list::Continue::new(at, key).encode().into_bytes()),
    );
    all
}

/// Expressions over `self`, a Pod, and `n`, a number.
pub fn expressions() -> Vec<Vec<u8>> {
    texts(&[
        "self.spec.containers.all(c, c.image.startsWith('i') && size(c.name) < 63)",
        "has(self.metadata.labels) ? self.metadata.labels.map(k, k + '=' + self.metadata.labels[k]) : []",
        "quantity('1Gi').isGreaterThan(quantity('500m')) || ip('::1').isLoopback() || cidr('10.0.0.0/8').containsIP('10.1.1.1')",
        "self.spec.containers.filter(c, c.?resources.limits.cpu.orValue('0') == '1').exists_one(c, true)",
        "duration('1h') + duration('30m') > duration('1s') && timestamp('2026-01-01T00:00:00Z').getFullYear() == n",
        "'%s %d %.2f %x'.format(['a', 1, 2.5, 255]).matches('^[a-z]+ (\\\\d+)') && b'\\x00' != b'a'",
        "cel.bind(x, [1, 2, 3], x.sum() == 6 && x.sortBy(y, -y)[0] == 3) && [1, 2] + [n] == [1, 2, n]",
        "self.spec.containers.transformMap(i, c, {c.name: i}).exists(k, v, k == 'a' && v == 0)",
        "-9223372036854775808 / -1 == 1 || 1u - 2u == 0u || 1.0 / 0.0 > 0.0 || 5 % 0 == 1",
        "semver('1.2.3').isLessThan(semver('2.0.0')) && url('https://a:1/b?c=d').getHost() == 'a:1' && type(n) == int",
    ])
}

/// Schemas of custom resources, each followed by a line with an object.
pub fn schemas() -> Vec<Vec<u8>> {
    let schema = json!({
        "type": "object", "required": ["spec"],
        "properties": {
            "spec": {"type": "object", "properties": {
                "replicas": {"type": "integer", "format": "int32", "minimum": 0, "maximum": 10, "default": 1},
                "mode": {"type": "string", "enum": ["a", "b"], "pattern": "^[ab]$", "maxLength": 5, "nullable": true},
                "list": {"type": "array", "maxItems": 5, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                    "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"},
                        "port": {"x-kubernetes-int-or-string": true}}}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "map": {"type": "object", "additionalProperties": {"type": "number", "multipleOf": 0.5}},
                "embedded": {"type": "object", "x-kubernetes-embedded-resource": true,
                    "x-kubernetes-preserve-unknown-fields": true}},
                "x-kubernetes-validations": [{"rule": "!has(self.replicas) || self.replicas <= 5", "message": "m"},
                    {"rule": "self == oldSelf", "optionalOldSelf": false}],
                "anyOf": [{"required": ["mode"]}, {"not": {"required": ["free"]}}]},
            "status": {"type": "object", "properties": {"at": {"type": "string", "format": "date-time"}}},
        },
    });
    let objects = [
        json!({"spec": {"mode": "a", "list": [{"name": "x", "port": 1}, {"name": "x", "port": "y"}], "map": {"k": 1.5}, "more": 1}}),
        json!({"spec": {"replicas": 9, "mode": null, "free": {"a": [{}]}, "embedded": {"kind": "K"}}, "status": {"at": "x"}}),
    ];
    let free = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let line = |schema: &Value, object: &Value| format!("{schema}\n{object}").into_bytes();
    objects.iter().flat_map(|object| [line(&schema, object), line(&free, object)]).collect()
}

/// Templates for a Pod.
pub fn templates() -> Vec<Vec<u8>> {
    texts(&[
        "{.metadata.name}",
        "{range .spec.containers[*]}{.name}{\"\\t\"}{end}",
        "{.spec.containers[?(@.name==\"a\")].image}",
        "{..name}",
        "{.spec.containers[-1:].env[0:2:1]}",
        "{.metadata['name','labels']}",
        "{[?(@.a > 1.5)]}text{'x'}",
    ])
}

/// Names of all sorts.
pub fn names() -> Vec<Vec<u8>> {
    texts(&["a", "a-b.c", "x.io/y", "*.a.b", "A_B", "", "..", "80%", "a/b/c", "-a-", "é"])
}

/// Bytes of SPDY/3.1: a stream with headers, data, a ping, and the end.
pub fn spdy() -> Vec<Vec<u8>> {
    let control = |kind: u8, flags: u8, body: &[u8]| {
        let length = u32::try_from(body.len()).unwrap_or_default().to_be_bytes();
        [&[0x80, 3, 0, kind, flags], length.get(1..).unwrap_or_default(), body].concat()
    };
    let data = |stream: u32, flags: u8, body: &[u8]| {
        let length = u32::try_from(body.len()).unwrap_or_default().to_be_bytes();
        [&stream.to_be_bytes()[..], &[flags], length.get(1..).unwrap_or_default(), body].concat()
    };
    let frames = [
        control(4, 0, &[0, 0, 0, 1, 0, 0, 0, 7, 0, 1, 0, 0]),
        control(1, 0, &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x78, 0xbb, 0xdf, 0xa2, 0x51, 0xb2]),
        data(1, 0, b"hello"),
        control(6, 0, &[0, 0, 0, 1]),
        control(9, 0, &[0, 0, 0, 1, 0x7f, 0xff, 0xff, 0xff]),
        control(3, 0, &[0, 0, 0, 1, 0, 0, 0, 5]),
        data(1, 1, b""),
        control(7, 0, &[0, 0, 0, 1, 0, 0, 0, 0]),
    ];
    let mut all = frames.to_vec();
    all.push(frames.concat());
    all
}
