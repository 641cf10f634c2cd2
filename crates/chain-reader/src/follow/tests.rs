//! Following on virtual time.

use tokio::time::{sleep, timeout};

use super::*;

mod world;

use world::{BLOCK, Mood, World, model};

fn follow(reader: &ChainReader) -> Follower {
    reader.follow(None)
}

/// The next event, which must be a model.
async fn next_model(follower: &mut Follower) -> Digest {
    match follower.next().await {
        FollowEvent::Model(model) => model.manifest,
        other => panic!("{other:?}"),
    }
}

async fn next_trouble(follower: &mut Follower) -> Trouble {
    match follower.next().await {
        FollowEvent::Trouble(trouble) => trouble,
        other => panic!("{other:?}"),
    }
}

/// Fails when an event comes within ten minutes.
async fn silence(follower: &mut Follower) {
    if let Ok(event) = timeout(Duration::from_secs(600), follower.next()).await {
        panic!("{event:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_model_is_told_once_and_an_older_one_is_a_change() {
    let world = World::new(3);
    let mut follower = follow(&world.reader(|_| ()));
    assert_eq!(next_model(&mut follower).await, model(0));
    for number in [1, 2, 1] {
        silence(&mut follower).await;
        world.set(&model(number).to_string());
        assert_eq!(next_model(&mut follower).await, model(number));
    }
    silence(&mut world.reader(|_| ()).follow(Some(model(1)))).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_was_busy_gets_the_current_model_and_not_those_between() {
    let world = World::new(3);
    let mut follower = follow(&world.reader(|_| ()));
    assert_eq!(next_model(&mut follower).await, model(0));
    let before = world.requests();
    for number in 1..=5 {
        world.set(&model(number).to_string());
        sleep(Duration::from_secs(3600)).await;
    }
    assert_eq!(world.requests(), before, "nobody has asked for the next event");
    assert_eq!(next_model(&mut follower).await, model(5));
}

#[tokio::test(start_paused = true)]
async fn giving_up_waiting_loses_nothing() {
    let world = World::new(3);
    let mut follower = follow(&world.reader(|_| ()));
    for number in 0..20 {
        world.set(&model(number).to_string());
        let event = loop {
            // Shorter than an answer takes.
            if let Ok(event) = timeout(Duration::from_millis(7), follower.next()).await {
                break event;
            }
        };
        match event {
            FollowEvent::Model(found) => assert_eq!(found.manifest, model(number)),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn trouble_is_told_once_and_its_end_too() {
    let world = World::new(3);
    let mut follower = follow(&world.reader(|_| ()));
    assert_eq!(next_model(&mut follower).await, model(0));
    for mood in [Mood::Down, Mood::RateLimited, Mood::Nonsense, Mood::Silent] {
        world.all(mood);
        let trouble = next_trouble(&mut follower).await;
        assert!(matches!(trouble.error, ChainError::NoQuorum { .. }), "{trouble}");
        assert_eq!(trouble.keeping, Some(model(0)));
        assert!(trouble.to_string().starts_with("keeping the last good model"));
        silence(&mut follower).await;
        world.all(Mood::Honest);
        assert!(matches!(follower.next().await, FollowEvent::Recovered), "{mood:?}");
        silence(&mut follower).await;
    }
    // A new model ends it as well.
    world.all(Mood::Down);
    next_trouble(&mut follower).await;
    world.set(&model(1).to_string());
    sleep(BLOCK).await;
    world.all(Mood::Honest);
    assert_eq!(next_model(&mut follower).await, model(1));
    silence(&mut follower).await;
}

#[tokio::test(start_paused = true)]
async fn each_wrong_text_is_an_alarm_of_its_own_and_takes_no_model_away() {
    let world = World::new(3);
    let mut follower = follow(&world.reader(|_| ()));
    assert_eq!(next_model(&mut follower).await, model(0));
    for text in ["ipfs://a", "ipfs://b"] {
        world.set(text);
        let trouble = next_trouble(&mut follower).await;
        assert!(trouble.error.to_string().contains(text) && trouble.keeping == Some(model(0)), "{trouble}");
        silence(&mut follower).await;
    }
    world.set("");
    assert!(matches!(next_trouble(&mut follower).await.error, ChainError::NoModel { .. }));
    world.set(&model(0).to_string());
    assert!(matches!(follower.next().await, FollowEvent::Recovered));
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_is_away_at_the_start_is_stood_in_for() {
    let world = World::new(3);
    let dir = tempfile::tempdir().unwrap();
    let stale = |config: &mut crate::Config| {
        config.state_dir = Some(dir.path().to_owned());
        config.staleness = Staleness::UpTo(Duration::from_secs(3600));
    };
    let reader = world.reader(stale);
    reader.note_loaded(&reader.mature_model().await.unwrap()).await.unwrap();
    world.set(&model(1).to_string());
    world.all(Mood::Down);
    let mut follower = follow(&world.reader(stale));
    assert_eq!(next_model(&mut follower).await, model(0));
    assert_eq!(next_trouble(&mut follower).await.keeping, Some(model(0)));
    world.all(Mood::Honest);
    assert_eq!(next_model(&mut follower).await, model(1));

    let refusing = |config: &mut crate::Config| config.state_dir = Some(dir.path().to_owned());
    world.all(Mood::Down);
    assert_eq!(next_trouble(&mut follow(&world.reader(refusing))).await.keeping, None);
    let mut offline = follow(&world.reader(|config| {
        refusing(config);
        config.staleness = Staleness::Offline;
    }));
    assert_eq!(next_model(&mut offline).await, model(0));
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_stands_still_is_trouble_and_the_age_is_told() {
    let world = World::new(3);
    let reader = world.reader(|_| ());
    let mut follower = follow(&reader);
    assert_eq!(next_model(&mut follower).await, model(0));
    world.set(&model(1).to_string());
    world.age(Duration::from_secs(3 * 24 * 3600));
    let trouble = next_trouble(&mut follower).await;
    // A quorum is enough: the third may not have answered yet.
    assert!(matches!(trouble.error, ChainError::StaleBlock { agreeing: 2..=3, .. }), "{trouble}");
    assert!(trouble.to_string().contains("3 days old, expected at most 6 hours"), "{trouble}");
    assert_eq!(trouble.error.availability(), crate::Availability::NotNow);
    silence(&mut follower).await;
    let age_s = reader.status().block.unwrap().age_s;
    assert!(age_s >= 3 * 24 * 3600, "{age_s}");
    world.age(Duration::from_secs(5 * 3600));
    assert_eq!(next_model(&mut follower).await, model(1));

    let lenient = world.reader(|config| config.max_block_age = Some(Duration::from_secs(7 * 24 * 3600)));
    world.age(Duration::from_secs(3 * 24 * 3600));
    assert_eq!(lenient.mature_model().await.unwrap().manifest, model(1));
    let strict = world.reader(|config| config.max_block_age = Some(Duration::from_secs(60)));
    world.age(Duration::from_secs(120));
    assert!(matches!(strict.mature_model().await, Err(ChainError::StaleBlock { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_hint_makes_it_look_at_once_and_a_flood_of_them_does_not() {
    let world = World::new(1);
    let reader = world.reader(|config| config.poll_interval = BLOCK * 100);
    let mut follower = follow(&reader);
    assert_eq!(next_model(&mut follower).await, model(0));
    world.set(&model(1).to_string());
    sleep(BLOCK).await;
    follower.hints.notify().notify_one();
    let told = timeout(BLOCK, next_model(&mut follower)).await;
    assert_eq!(told.unwrap(), model(1), "long before the interval has passed");

    let rounds = reader.status().rounds;
    let hinted = std::sync::Arc::clone(follower.hints.notify());
    let flood = tokio::spawn(async move {
        loop {
            hinted.notify_one();
            sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(timeout(BLOCK * 1000, follower.next()).await.is_err());
    flood.abort();
    let looks = reader.status().rounds - rounds;
    assert!((10..=26).contains(&looks), "{looks} looks in ten intervals");
}

#[tokio::test(start_paused = true)]
async fn a_day_of_polls_leaks_nothing_and_never_misses_the_last_version() {
    for seed in 0..3 {
        fastrand::seed(seed);
        let world = World::new(3);
        let reader = world.reader(|_| ());
        let mut follower = follow(&reader);
        assert_eq!(next_model(&mut follower).await, model(0));
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let holders = world.holders();

        let (mut current, mut told) = (0, vec![model(0)]);
        let day = Instant::now();
        while day.elapsed() < Duration::from_secs(24 * 3600) {
            // Every half hour or so something changes: one endpoint at a time is bad, or all, or the model is new.
            let change_after = Duration::from_secs(fastrand::u64(600..3600));
            match fastrand::u8(..10) {
                0..4 => {
                    current += 1;
                    world.set(&model(current).to_string());
                }
                4 => world.all([Mood::Down, Mood::RateLimited, Mood::Reorganised][fastrand::usize(..3)]),
                _ => {
                    let moods = [
                        Mood::Down,
                        Mood::RateLimited,
                        Mood::Nonsense,
                        Mood::Silent,
                        Mood::Lying,
                        Mood::Lagging(32),
                        Mood::Boasting,
                        Mood::Reorganised,
                    ];
                    world.all(Mood::Honest);
                    world.mood(fastrand::usize(..3), moods[fastrand::usize(..moods.len())]);
                }
            }
            let until = Instant::now() + change_after;
            while let Ok(event) = tokio::time::timeout_at(until, follower.next()).await {
                if let FollowEvent::Model(found) = event {
                    assert_ne!(told.last(), Some(&found.manifest), "told twice");
                    told.push(found.manifest);
                }
                assert!(follower.events.len() <= 1);
            }
        }
        world.all(Mood::Honest);
        let until = Instant::now() + Duration::from_secs(600);
        while let Ok(event) = tokio::time::timeout_at(until, follower.next()).await {
            if let FollowEvent::Model(found) = event {
                told.push(found.manifest);
            }
        }
        assert_eq!(told.last(), Some(&model(current)), "seed {seed}");
        assert!(told.windows(2).all(|pair| pair[0] != pair[1]), "seed {seed}");
        assert!(!told.contains(&model(u64::MAX)), "a lie was believed, seed {seed}");
        let versions: Vec<_> = (0..=current).map(model).collect();
        let positions = told.iter().map(|told| versions.iter().position(|version| version == told));
        assert!(positions.is_sorted(), "seed {seed}");

        let status = reader.status();
        assert!(status.rounds > 5_000, "{} rounds", status.rounds);
        assert!(status.recent_disagreements.len() <= 16);
        // Only a look that is just under way may hold more than before.
        follower.looking = None;
        assert_eq!(world.holders(), holders, "seed {seed}");
        assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), tasks);
    }
}
