use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::{EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet};

fn files() -> Vec<FileDescriptorProto> {
    let set = FileDescriptorSet::decode(crate::FILE_DESCRIPTOR_SET).unwrap();
    set.file.into_iter().filter(|file| file.package() == "daypass.v1").collect()
}

/// `TokenProfile` as its values begin: `TOKEN_PROFILE_`.
fn prefix(of: &EnumDescriptorProto) -> String {
    let mut prefix = String::new();
    for letter in of.name().chars() {
        if letter.is_ascii_uppercase() && !prefix.is_empty() {
            prefix.push('_');
        }
        prefix.push(letter.to_ascii_uppercase());
    }
    prefix + "_"
}

#[test]
fn an_enum_begins_with_unspecified_and_its_values_carry_its_name() {
    for it in files().iter().flat_map(|file| &file.enum_type) {
        let prefix = prefix(it);
        assert_eq!(it.value[0].name(), format!("{prefix}UNSPECIFIED"));
        for (number, value) in it.value.iter().enumerate() {
            assert!(value.name().starts_with(&prefix), "{}", value.name());
            assert_eq!(usize::try_from(value.number()).unwrap(), number, "{}", value.name());
        }
    }
}

#[test]
fn each_method_has_a_request_and_a_response_of_its_own() {
    let mut seen = BTreeSet::new();
    for service in files().iter().flat_map(|file| &file.service) {
        for method in &service.method {
            assert_eq!(method.input_type(), format!(".daypass.v1.{}Request", method.name()));
            assert_eq!(method.output_type(), format!(".daypass.v1.{}Response", method.name()));
            assert!(seen.insert(method.name().to_owned()), "{}", method.name());
        }
    }
    assert_eq!(seen.len(), 24);
}

#[test]
fn everything_has_a_comment() {
    for file in files() {
        for place in file.source_code_info.iter().flat_map(|info| &info.location) {
            // Messages, enums and services, and what is directly in them (descriptor.proto, SourceCodeInfo).
            let is_named = matches!(place.path.as_slice(), [4..=6, _] | [4, _, 2 | 8, _] | [5 | 6, _, 2, _]);
            let comment = place.leading_comments().trim();
            assert!(!is_named || !comment.is_empty(), "{} {:?}", file.name(), place.path);
        }
    }
}
