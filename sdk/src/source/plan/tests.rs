//! A day between two clocks, in no time: outages, sleep, and clocks that are set.

use daypass_verify::time::UnixMs;

use super::super::tests::{granted, refused};
use super::*;
use crate::error::Refusal;

const LIFE_MS: i64 = 60_000;
const DAY_MS: i64 = 86_400_000;
const MIDDLE: Draw = Draw::new(500);

/// Two thirds of a life.
fn after(issued_at: UnixMs, life_ms: i64) -> UnixMs {
    issued_at.plus_millis(life_ms * 2 / 3)
}

/// A small generator: the same day for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: i64) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from(self.0 >> 33).unwrap() % limit
    }
}

/// A machine, its clocks, and a broker that may be away. `true_ms` is what a faultless clock would show.
struct Day {
    dice: Dice,
    plan: Plan,
    true_ms: i64,
    wall_off_ms: i64,
    away_until_ms: i64,
    ends_ms: Option<i64>,
    asked: u32,
    last_disturbed_ms: i64,
}

impl Day {
    fn new(seed: u64) -> Self {
        Self {
            dice: Dice(seed),
            plan: Plan::default(),
            true_ms: 0,
            wall_off_ms: 0,
            away_until_ms: 0,
            ends_ms: None,
            asked: 0,
            last_disturbed_ms: 0,
        }
    }

    fn now(&self) -> Moment {
        let wall = UnixMs::new(1_795_316_400_000 + self.true_ms + self.wall_off_ms);
        Moment { wall, boot_ms: self.true_ms }
    }

    fn serves(&self) -> bool {
        self.plan.held.is_some_and(|held| !held.is_over(self.now()))
    }

    /// Never one that has truly ended; always one where nothing was wrong for a whole life.
    fn check(&self) {
        let good = self.ends_ms.is_some_and(|end| self.true_ms < end);
        assert!(!self.serves() || good, "handed out after its end, at {}", self.true_ms);
        if self.true_ms > self.last_disturbed_ms + LIFE_MS {
            assert!(self.serves(), "a gap at {}", self.true_ms);
        }
    }

    fn step(&mut self) {
        self.plan.ends(self.now());
        match self.plan.next(self.now()) {
            Step::Ask => self.ask(),
            Step::Wait(wait) => {
                assert!(wait.as_millis() > 0 && wait <= LOOK);
                self.true_ms += i64::try_from(wait.as_millis()).unwrap();
            }
        }
        self.check();
    }

    fn ask(&mut self) {
        self.asked += 1;
        let asked = self.now();
        self.true_ms += self.dice.below(200);
        let draw = Draw::new(u16::try_from(self.dice.below(1001)).unwrap());
        if self.true_ms < self.away_until_ms {
            let error = Error::Unreachable { broker: "b".into(), detail: "away".into() };
            self.plan.failed(&error, self.now(), draw);
            return;
        }
        self.ends_ms = Some(self.true_ms + LIFE_MS);
        let wall = self.now().wall;
        self.plan.succeeded(Life::of(&granted(wall, LIFE_MS), after(wall, LIFE_MS), asked, draw));
    }

    fn disturb(&mut self) {
        match self.dice.below(4) {
            // A restart of the broker, or of something between: shorter than what is left of a life.
            0 => {
                self.away_until_ms = self.true_ms + self.dice.below(LIFE_MS / 10);
                return;
            }
            1 => self.away_until_ms = self.true_ms + self.dice.below(10 * LIFE_MS),
            2 => self.true_ms += self.dice.below(20 * LIFE_MS),
            // Somebody sets the wall clock; every other time the broker is away besides.
            _ => {
                self.wall_off_ms += self.dice.below(7_200_000) - 3_600_000;
                self.away_until_ms = self.true_ms + self.dice.below(2) * 3 * LIFE_MS;
            }
        }
        self.last_disturbed_ms = self.true_ms.max(self.away_until_ms);
    }
}

#[test]
fn a_day_has_no_gap_and_no_credential_after_its_end() {
    for seed in 0..8 {
        let mut day = Day::new(seed);
        let mut quiet_until_ms = 0;
        while day.true_ms < DAY_MS {
            if day.true_ms >= quiet_until_ms {
                day.disturb();
                quiet_until_ms = day.true_ms + LIFE_MS + day.dice.below(10 * LIFE_MS);
            }
            day.step();
        }
        let least = u32::try_from(DAY_MS / LIFE_MS).unwrap() / 4;
        assert!((least..least * 40).contains(&day.asked), "asked {} times", day.asked);
    }
}

#[test]
fn it_asks_at_two_thirds_of_a_life_give_or_take_a_tenth() {
    let asked = Moment { wall: UnixMs::new(1_795_316_400_000), boot_ms: 77 };
    for (draw, due_ms) in [(0, 540_000), (500, 600_000), (1000, 660_000)] {
        let made = granted(asked.wall, 900_000);
        let life = Life::of(&made, after(asked.wall, 900_000), asked, Draw::new(draw));
        assert_eq!(life.due_in_ms(asked), due_ms);
        assert_eq!(life.over_in_ms(asked), 895_000);
    }
}

#[test]
fn a_broker_that_says_to_renew_at_once_is_not_asked_without_end() {
    let asked = Moment { wall: UnixMs::new(1_795_316_400_000), boot_ms: 77 };
    let life = Life::of(&granted(asked.wall, 900_000), asked.wall, asked, MIDDLE);
    assert_eq!(life.due_in_ms(asked), 450_000);
}

fn pauses(error: &Error, draw: Draw) -> Vec<i64> {
    let (mut plan, now) = (Plan::default(), Moment { wall: UnixMs::new(0), boot_ms: 0 });
    (0..8)
        .map(|_| {
            plan.failed(error, now, draw);
            plan.pause.unwrap().until_boot_ms
        })
        .collect()
}

#[test]
fn it_backs_off_and_never_asks_sooner_than_the_broker_said() {
    let silent = Error::Unreachable { broker: "b".into(), detail: "away".into() };
    assert_eq!(pauses(&silent, Draw::new(1000)), [250, 500, 1000, 2000, 4000, 8000, 15_000, 15_000]);
    assert_eq!(pauses(&silent, Draw::new(0))[6..], [7_500, 7_500]);
    let refusal = Refusal { reason: "RATE_LIMITED".into(), message: String::new(), request_id: None };
    let busy = Error::Retry { after: Duration::from_secs(7), refusal };
    assert_eq!(pauses(&busy, Draw::new(0))[..2], [7_000, 7_000]);
    assert_eq!(pauses(&busy, Draw::new(1000))[..2], [8_400, 8_400]);
}

#[test]
fn what_was_refused_is_asked_again_slowly_unless_the_proof_is_another() {
    assert_eq!(
        pauses(&refused("SUSPENDED"), Draw::new(1000))[..5],
        [30_000, 60_000, 120_000, 240_000, 300_000]
    );
    let mut plan = Plan::default();
    let now = Moment { wall: UnixMs::new(0), boot_ms: 0 };
    plan.failed(&refused("SUSPENDED"), now, MIDDLE);
    assert!(plan.is_refused() && plan.next(now) != Step::Ask);
    plan.proof_changed();
    assert_eq!(plan.next(now), Step::Ask);
}
