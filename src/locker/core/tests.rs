//! The core over a model of the server, with every fault and without time passing.

mod closing;
mod failures;
mod hand_off;
mod losses;
mod play;
mod queueing;
mod server;
mod waits;
mod world;

use world::{Faults, World};

fn faulty() -> Faults {
    Faults {
        terminated: 300,
        failed: 20,
        lost: 150,
        silent: 400,
        unopened: 10,
    }
}

#[test]
fn locks_exclude_and_nothing_is_left() {
    for seed in 0..200 {
        let mut world = World::new(
            seed,
            1 + seed as usize % 3,
            1 + seed as usize % 7,
            Faults::default(),
        );
        world.run(200);
        assert_eq!(world.figures.lost, 0, "seed {seed}");
    }
}

#[test]
fn locks_exclude_under_every_fault() {
    for seed in 0..200 {
        let result = std::panic::catch_unwind(|| {
            World::new(seed, 1 + seed as usize % 3, 1 + seed as usize % 7, faulty()).run(200);
        });
        assert!(result.is_ok(), "seed {seed}");
    }
}
