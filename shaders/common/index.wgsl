// How many invocations a workgroup has, and which of a one-dimensional range one of them takes.
const WORKGROUP: u32 = 64u; // of a kernel that says nothing else
const VECTOR: u32 = 8u;     // of a kernel for CPU-like adapters (its name ends in _rows): the lanes of a 256-bit vector

// The index of an invocation when the range is spread over workgroups in x and y.
fn flat_index(workgroup: vec3<u32>, workgroups: vec3<u32>, size: u32, local: u32) -> u32 {
    return (workgroup.x + workgroup.y * workgroups.x) * size + local;
}
