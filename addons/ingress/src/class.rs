//! Which Ingresses are this controller's.

use std::collections::HashSet;

use k8s_openapi::api::networking::v1::{Ingress, IngressClass};

/// The annotation that named a class before there was a field.
const ANNOTATION: &str = "kubernetes.io/ingress.class";

/// What decides.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClassRules {
    /// `--ingress-class`.
    pub(crate) name: String,
    /// `--ingress-class-by-name`.
    pub(crate) by_name: bool,
    /// `--watch-ingress-without-class`.
    pub(crate) without_class: bool,
    /// IngressClasses of this controller.
    pub(crate) classes: HashSet<String>,
}

impl ClassRules {
    /// Takes in the IngressClasses of the cluster.
    pub(crate) fn with<'a>(mut self, controller: &str, all: impl Iterator<Item = &'a IngressClass>) -> Self {
        let own = all.filter(|class| {
            let spec = class.spec.as_ref();
            let named = self.by_name && class.metadata.name.as_deref() == Some(&self.name);
            named || spec.and_then(|spec| spec.controller.as_deref()) == Some(controller)
        });
        self.classes = own.filter_map(|class| class.metadata.name.clone()).collect();
        self
    }

    /// Whether an Ingress is ours.
    pub(crate) fn covers(&self, ingress: &Ingress) -> bool {
        let annotation = ingress.metadata.annotations.as_ref().and_then(|all| all.get(ANNOTATION));
        let field = ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_ref());
        match (annotation, field) {
            (Some(annotation), None) if annotation.is_empty() => self.without_class,
            (Some(annotation), None) => *annotation == self.name,
            // Both may be there only if they agree; the field is what the API knows.
            (_, Some(field)) => self.classes.contains(field),
            (None, None) => self.without_class,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(without_class: bool, by_name: bool) -> ClassRules {
        let class = |name: &str, controller: &str| -> IngressClass {
            serde_json::from_value(serde_json::json!({"metadata": {"name": name}, "spec": {"controller": controller}}))
                .expect("valid")
        };
        let all = [class("web", "k8s.io/ingress-nginx"), class("other", "example.com/other"), class("nginx", "x.y/z")];
        ClassRules { name: "nginx".into(), by_name, without_class, ..ClassRules::default() }
            .with("k8s.io/ingress-nginx", all.iter())
    }

    fn ingress(annotation: Option<&str>, field: Option<&str>) -> Ingress {
        let mut ingress = Ingress::default();
        ingress.metadata.annotations = annotation.map(|a| [(ANNOTATION.to_owned(), a.to_owned())].into());
        ingress.spec.get_or_insert_default().ingress_class_name = field.map(str::to_owned);
        ingress
    }

    #[test]
    fn coverage() {
        let table = [
            (None, Some("web"), false, false, true),
            (None, Some("other"), true, false, false),
            (None, Some("nginx"), false, false, false),
            (None, Some("nginx"), false, true, true),
            (Some("nginx"), None, false, false, true),
            (Some("traefik"), None, true, false, false),
            (Some("nginx"), Some("other"), false, false, false),
            (Some("web"), Some("web"), false, false, true),
            (None, None, false, false, false),
            (None, None, true, false, true),
            (Some(""), None, true, false, true),
        ];
        for (annotation, field, without_class, by_name, wanted) in table {
            let covered = rules(without_class, by_name).covers(&ingress(annotation, field));
            assert_eq!(covered, wanted, "{annotation:?} {field:?} {without_class} {by_name}");
        }
    }
}
