//! Bob Jenkins' [lookup3] as PostgreSQL uses it for text, on a little-endian server.
//!
//! [lookup3]: http://burtleburtle.net/bob/c/lookup3.c

/// Jenkins' golden ratio, and PostgreSQL's own start value.
const START: u32 = 0x9e37_79b9_u32.wrapping_add(3_923_095);

/// Two hashes of `bytes`: the high and the low half of `hashtextextended`. With seed 0 the low one
/// is `hashtext`.
pub(super) fn hash(bytes: &[u8], seed: u64) -> (u32, u32) {
    // The server has no text of 4 GiB, so the fallback is never taken.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut state = State([START.wrapping_add(length); 3]);
    if seed != 0 {
        let [a, b, c, d, e, f, g, h] = seed.to_be_bytes();
        let high = u32::from_be_bytes([a, b, c, d]);
        let low = u32::from_be_bytes([e, f, g, h]);
        state.add([high, low, 0]);
        state.mix();
    }
    let mut blocks = bytes.chunks_exact(12);
    for block in &mut blocks {
        state.add(words(block));
        state.mix();
    }
    // The lowest byte of the third word was meant for the length, so the last bytes are moved up by
    // one.
    let [a, b, c] = words(blocks.remainder());
    state.add([a, b, c << 8]);
    state.finish();
    let State([_, high, low]) = state;
    (high, low)
}

/// Up to twelve bytes as three little-endian words; bytes that are missing are 0.
fn words(bytes: &[u8]) -> [u32; 3] {
    let mut words = [0; 3];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks(4)) {
        for &byte in bytes.iter().rev() {
            *word = *word << 8 | u32::from(byte);
        }
    }
    words
}

struct State([u32; 3]);

impl State {
    fn add(&mut self, words: [u32; 3]) {
        for (mine, word) in self.0.iter_mut().zip(words) {
            *mine = mine.wrapping_add(word);
        }
    }

    fn mix(&mut self) {
        let [mut a, mut b, mut c] = self.0;
        for [first, second, third] in [[4, 6, 8], [16, 19, 4]] {
            a = a.wrapping_sub(c) ^ c.rotate_left(first);
            c = c.wrapping_add(b);
            b = b.wrapping_sub(a) ^ a.rotate_left(second);
            a = a.wrapping_add(c);
            c = c.wrapping_sub(b) ^ b.rotate_left(third);
            b = b.wrapping_add(a);
        }
        self.0 = [a, b, c];
    }

    fn finish(&mut self) {
        let [mut a, mut b, mut c] = self.0;
        c = (c ^ b).wrapping_sub(b.rotate_left(14));
        a = (a ^ c).wrapping_sub(c.rotate_left(11));
        b = (b ^ a).wrapping_sub(a.rotate_left(25));
        c = (c ^ b).wrapping_sub(b.rotate_left(16));
        a = (a ^ c).wrapping_sub(c.rotate_left(4));
        b = (b ^ a).wrapping_sub(a.rotate_left(14));
        c = (c ^ b).wrapping_sub(b.rotate_left(24));
        self.0 = [a, b, c];
    }
}
