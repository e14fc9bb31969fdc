// The index of an invocation when a one-dimensional range is spread over workgroups in x and y.
fn flat_index(workgroup: vec3<u32>, workgroups: vec3<u32>, size: u32, local: u32) -> u32 {
    return (workgroup.x + workgroup.y * workgroups.x) * size + local;
}
