//! What a way between two hosts does to what goes over it.

/// Of one direction between two hosts, on top of the weather.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Nothing arrives.
    pub is_cut: bool,
    /// Everything takes so much longer, in microseconds.
    pub extra_us: u64,
    /// So many of a thousand are lost.
    pub loss_permille: u64,
}

impl Link {
    /// Nothing arrives.
    pub const CUT: Self = Self {
        is_cut: true,
        extra_us: 0,
        loss_permille: 0,
    };
}

/// Of every link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// Shortest time on the way, in microseconds; at least one step of the world.
    pub latency_us_min: u64,
    /// Longest.
    pub latency_us_max: u64,
    /// So many of a thousand datagrams are lost; segments of connections come later instead.
    pub loss_permille: u64,
    /// So many of a thousand datagrams come twice.
    pub twice_permille: u64,
}
