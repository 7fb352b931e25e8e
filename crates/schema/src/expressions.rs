//! What expressions may know of the objects of a kind.

use cel::Type;
use machinery::schema::{SchemaRef, Shape};

/// The type of the values of a schema. Of what schemas hold within themselves nothing is known.
pub fn type_of(schema: SchemaRef<'_>) -> Type {
    within(schema, &mut Vec::new())
}

/// `around`: names of the types that this one stands in.
fn within<'a>(schema: SchemaRef<'a>, around: &mut Vec<&'a str>) -> Type {
    let name = schema.get().name.as_str();
    if !name.is_empty() && around.contains(&name) {
        return Type::Dyn;
    }
    around.push(name);
    let found = match schema.shape() {
        Shape::String | Shape::Quantity => Type::String,
        Shape::Integer(_) => Type::Int,
        Shape::Number => Type::Double,
        Shape::Boolean => Type::Bool,
        Shape::Bytes => Type::Bytes,
        Shape::Time | Shape::MicroTime => Type::Timestamp,
        Shape::IntOrString | Shape::Any => Type::Dyn,
        Shape::List { item, .. } => Type::list(within(schema.follow(*item), around)),
        Shape::Map { value } => Type::map(within(schema.follow(*value), around)),
        Shape::Struct(fields) => {
            let fields = fields.iter().map(|(name, fact)| (name.clone(), within(schema.follow(fact.type_id), around)));
            Type::object(fields)
        }
    };
    around.pop();
    found
}

#[cfg(test)]
mod tests {
    use machinery::GroupVersionKind;

    use super::*;

    #[test]
    fn fields_of_built_in_kinds_are_known() {
        let kind = GroupVersionKind::new("apps", "v1", "Deployment");
        let deployment = type_of(api::api().schema(&kind).expect("a schema"));
        let told = |expression: &str| cel::Program::compile(expression, &[("object", &deployment)]).map(|_| ());
        for expression in [
            "object.spec.replicas > 1 && object.metadata.creationTimestamp < timestamp('2030-01-01T00:00:00Z')",
            "object.spec.template.spec.containers.all(c, c.image.startsWith('x') && 'cpu' in c.resources.limits)",
            "object.spec.strategy.rollingUpdate.maxSurge == 1 || object.metadata.labels['a'] == 'b'",
        ] {
            assert_eq!(told(expression), Ok(()), "{expression}");
        }
        for expression in ["object.spec.replicas > '1'", "object.spec.nothing == 1", "object.metadata.labels.a > 1"] {
            assert!(told(expression).is_err(), "{expression}");
        }
        // Schemas hold schemas.
        let kind = GroupVersionKind::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
        type_of(api::api().schema(&kind).expect("a schema"));
    }
}
