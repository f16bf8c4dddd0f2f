//! A unit as it is configured.

/// What `--lun` says of a unit.
pub struct Unit {
    /// Its number; it is at target 0.
    pub lun: u16,
    /// Its serial number, which is the name of its image, too.
    pub serial: &'static str,
    /// Its size.
    pub bytes: u64,
    pub vendor: &'static str,
    pub product: &'static str,
    pub revision: &'static str,
    /// Its designator, if it was given one.
    pub naa: Option<u64>,
    /// Size of a logical block.
    pub block: u64,
    /// Size of a physical block.
    pub physical: u64,
    /// As `rotation-rate=` takes it.
    pub rotation: u16,
    pub thin: bool,
    pub write_cache: bool,
    pub descriptor_sense: bool,
    pub read_only: bool,
    /// Whether its medium can be ejected.
    pub removable: bool,
}

impl Unit {
    /// What vstgt takes when nothing is said (and what has no default).
    pub const DEFAULT: Unit = Unit {
        lun: 0,
        serial: "",
        bytes: 0,
        vendor: "IBM",
        product: "VDASD blkdev",
        revision: "0001",
        naa: None,
        block: 512,
        physical: 512,
        rotation: 1,
        thin: true,
        write_cache: true,
        descriptor_sense: false,
        read_only: false,
        removable: false,
    };

    /// What follows the file in `--lun`; what is as by default is left out.
    pub fn options(&self) -> String {
        let mut options = format!(",lun={},serial={}", self.lun, self.serial);
        let mut say = |said: bool, words: String| {
            if said {
                options.push_str(&words);
            }
        };
        let default = Unit::DEFAULT;
        say(self.vendor != default.vendor, format!(",vendor={}", self.vendor));
        say(self.product != default.product, format!(",product={}", self.product));
        say(self.revision != default.revision, format!(",revision={}", self.revision));
        say(self.naa.is_some(), format!(",naa=0x{:016x}", self.naa.unwrap_or(0)));
        say(self.block != default.block, format!(",block-size={}", self.block));
        say(self.physical != self.block, format!(",physical-block-size={}", self.physical));
        say(self.rotation != default.rotation, format!(",rotation-rate={}", self.rotation));
        say(!self.thin, ",provisioning=full".to_owned());
        say(!self.write_cache, ",write-cache=off".to_owned());
        say(self.descriptor_sense, ",sense-format=descriptor".to_owned());
        say(self.read_only, ",read-only=on".to_owned());
        say(self.removable, ",removable=on".to_owned());
        options
    }

    /// How many blocks it has.
    pub fn blocks(&self) -> u64 {
        self.bytes / self.block
    }

    /// Whether blocks can be unmapped: not of what cannot be written.
    pub fn unmaps(&self) -> bool {
        self.thin && !self.read_only
    }
}

/// Bytes in which every position can be told from its neighbours.
pub fn pattern(size: u64) -> Vec<u8> {
    (0..size).map(|at| ((at * 7) ^ (at >> 8) ^ (at >> 16)) as u8).collect()
}
