#![allow(clippy::unwrap_used)]
use super::*;
#[test]
fn gallery() {
    let Ok(dir) = std::env::var("GALLERY") else { return };
    let jobs = std::fs::read_to_string(format!("{dir}/jobs")).unwrap();
    for line in jobs.lines() {
        let p: Vec<&str> = line.split('|').collect();
        let reference =
            (!p[1].is_empty()).then(|| image::open(format!("/work/shared/fixtures/{}", p[1])).unwrap().to_rgb8());
        let order = Order {
            prompt: p[2].into(),
            influence: p[3].parse().unwrap(),
            steps: 12,
            fast: false,
            enhance: false,
            seed: p[4].parse().unwrap(),
        };
        let t = std::time::Instant::now();
        let out = paint(reference.as_ref(), &order).unwrap();
        println!("{} {:?}", p[0], t.elapsed());
        out.save(format!("{dir}/{}.png", p[0])).unwrap();
    }
}
