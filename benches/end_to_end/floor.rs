//! The bare job: what anybody has to do who takes pictures from a folder to the API and its answers to the disk.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::ffi::OsStringExt as _;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use base64::Engine as _;
use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};

use super::api::UPLOAD;
use super::args::Floor;

/// Works until it is killed.
pub fn run(args: &Floor) {
    let inbox = args.root.join("inbox");
    let notify = init(CreateFlags::CLOEXEC).unwrap();
    add_watch(&notify, &inbox, WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE).unwrap();
    let (names, queue) = mpsc::channel::<OsString>();
    let queue = Arc::new(Mutex::new(queue));
    for _ in 0..args.in_flight {
        let (queue, args) = (Arc::clone(&queue), args.clone());
        thread::spawn(move || {
            let mut worker = Worker::new(args);
            loop {
                let name = queue.lock().unwrap().recv();
                let Ok(name) = name else { return };
                worker.work(&name);
            }
        });
    }
    println!("ready");
    let mut buf = [MaybeUninit::uninit(); 16 * 1024];
    let mut reader = Reader::new(&notify, &mut buf);
    loop {
        let event = reader.next().unwrap();
        if let Some(name) = event.file_name() {
            names.send(OsString::from_vec(name.to_bytes().to_vec())).unwrap();
        }
    }
}

struct Worker {
    args: Floor,
    outbox: File,
    /// Kept for uploads, and for all if that was asked for.
    kept: Option<TcpStream>,
}

impl Worker {
    fn new(args: Floor) -> Self {
        let outbox = File::open(args.root.join("outbox")).unwrap();
        Self { args, outbox, kept: None }
    }

    fn work(&mut self, name: &OsStr) {
        let root = self.args.root.clone();
        let url = if self.args.upload {
            let picture = fs::read(root.join("inbox").join(name)).unwrap();
            let body = format!(
                "{{\"data_urls\":[\"data:image/jpeg;base64,{}\"]}}",
                base64::engine::general_purpose::STANDARD.encode(picture)
            );
            let mut stream = self.kept.take().unwrap_or_else(|| self.connect());
            let answer = self.post(&mut stream, UPLOAD, &body);
            self.kept = Some(stream);
            let text = String::from_utf8(answer).unwrap();
            text.split('"').nth(3).unwrap().to_owned()
        } else {
            format!("http://127.0.0.1:1/{}", name.display())
        };
        let body = format!("{{\"prompt\":\"a look\",\"structure_image_url\":\"{url}\"}}");
        let mut stream = self.kept.take().filter(|_| self.args.keep).unwrap_or_else(|| self.connect());
        let picture = self.post(&mut stream, "/v1/bria-reimagine", &body);
        if self.args.keep || self.args.upload {
            self.kept = Some(stream);
        }
        let mut hidden = OsString::from(".");
        hidden.push(name);
        let (hidden, result) = (root.join("outbox").join(hidden), root.join("outbox").join(name));
        let mut file = File::create(&hidden).unwrap();
        file.write_all(&picture).unwrap();
        file.sync_all().unwrap();
        fs::rename(hidden, result).unwrap();
        self.outbox.sync_all().unwrap();
        fs::rename(root.join("inbox").join(name), root.join("archive").join(name)).unwrap();
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.args.port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    fn post(&self, stream: &mut TcpStream, path: &str, body: &str) -> Vec<u8> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nx-api-key: k\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            self.args.port,
            body.len()
        );
        stream.write_all((head + body).as_bytes()).unwrap();
        let mut answer = Vec::with_capacity(256 * 1024);
        let mut buf = vec![0; 128 * 1024];
        let head = loop {
            let n = stream.read(&mut buf).unwrap();
            assert!(n > 0, "no answer");
            answer.extend_from_slice(&buf[..n]);
            if let Some(end) = answer.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let text = String::from_utf8_lossy(&answer[..head]).into_owned();
        let length = text.lines().find_map(|l| l.strip_prefix("content-length:")).unwrap();
        let length: usize = length.trim().parse().unwrap();
        let mut body = answer.split_off(head);
        while body.len() < length {
            let n = stream.read(&mut buf).unwrap();
            assert!(n > 0, "a cut answer");
            body.extend_from_slice(&buf[..n]);
        }
        body
    }
}
