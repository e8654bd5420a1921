//! The wire: `assay.v1`, its generated messages, clients and servers.

/// Messages and services of the package `assay.v1`; the `.proto` files document them.
pub mod v1 {
    #![expect(missing_docs, reason = "generated; the .proto files hold the documentation")]
    #![expect(clippy::allow_attributes, clippy::large_enum_variant, reason = "generated")]
    tonic::include_proto!("assay.v1");
}

/// The serialized `FileDescriptorSet` of `assay.v1`, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
