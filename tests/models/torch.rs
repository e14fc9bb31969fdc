//! Files of PyTorch: those that `torch.save` would have written, and hostile ones. The writer below knows the instructions of a
//! pickle and the records of a zip archive.

use std::time::{Duration, Instant};

use lara_models::torch;
use lara_models::train::checkpoint::TrainedModel;
use lara_models::weights::TensorFile;

use crate::cli::{lara, output};
use crate::library::golden;

/// A pickle that is being written.
#[derive(Default)]
pub(crate) struct Pickle(pub(crate) Vec<u8>);

impl Pickle {
    pub(crate) fn code(mut self, code: &[u8]) -> Self {
        self.0.extend(code);
        self
    }

    fn text(self, text: &str) -> Self {
        self.code(b"X").code(&(text.len() as u32).to_le_bytes()).code(text.as_bytes())
    }

    fn int(self, number: usize) -> Self {
        match u8::try_from(number) {
            Ok(byte) => self.code(&[b'K', byte]),
            Err(_) => self.code(b"\x8a\x08").code(&(number as u64).to_le_bytes()),
        }
    }

    fn tuple(self, numbers: &[usize]) -> Self {
        numbers.iter().fold(self.code(b"("), |pickle, number| pickle.int(*number)).code(b"t")
    }

    fn global(self, module: &str, name: &str) -> Self {
        self.code(format!("c{module}\n{name}\n").as_bytes())
    }

    fn storage(self, kind: &str, key: &str, len: usize) -> Self {
        let open = self.code(b"(").text("storage").global("torch", kind).text(key).text("cpu");
        open.int(len).code(b"tQ")
    }

    fn tensor(self, kind: &str, key: &str, (len, offset): (usize, usize), shape: &[usize], strides: &[usize]) -> Self {
        let open = self.global("torch._utils", "_rebuild_tensor_v2").code(b"(").storage(kind, key, len).int(offset);
        let sized = open.tuple(shape).tuple(strides).code(b"\x89");
        sized.global("collections", "OrderedDict").code(b")RtR")
    }

    fn ordered(self) -> Self {
        self.global("collections", "OrderedDict").code(b")R")
    }

    /// Whole: version 2, the dictionary that `body` makes, an end.
    pub(crate) fn whole(body: impl FnOnce(Self) -> Self) -> Vec<u8> {
        body(Pickle::default().code(b"\x80\x02")).code(b".").0
    }
}

/// A zip archive of stored entries, with the offsets of Zip64 if `long`.
pub(crate) fn zip(entries: &[(&str, &[u8])], long: bool) -> Vec<u8> {
    let (mut bytes, mut list) = (Vec::new(), Vec::new());
    let words = |words: &[u16]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    for (name, data) in entries {
        let (offset, crc) = (bytes.len() as u32, crc32fast::hash(data));
        let sizes = [crc, data.len() as u32, data.len() as u32].map(u32::to_le_bytes).concat();
        // PyTorch fills up so that numbers begin at multiples of 64.
        let padding = 64 - (bytes.len() + 34 + name.len()) % 64;
        bytes.extend([&b"PK\x03\x04"[..], &words(&[0, 0, 0, 0, 0]), &sizes].concat());
        bytes.extend(words(&[name.len() as u16, 4 + padding as u16]));
        bytes.extend([name.as_bytes(), b"FB", &words(&[padding as u16]), &vec![b'Z'; padding]].concat());
        bytes.extend(*data);
        let extra: Vec<u8> = match long {
            true => {
                [words(&[1, 24]), [data.len() as u64, data.len() as u64, offset.into()].map(u64::to_le_bytes).concat()]
                    .concat()
            }
            false => Vec::new(),
        };
        let sizes = if long { [crc, !0, !0].map(u32::to_le_bytes).concat() } else { sizes };
        list.extend([&b"PK\x01\x02"[..], &words(&[0, 0, 0, 0, 0, 0]), &sizes].concat());
        list.extend(words(&[name.len() as u16, extra.len() as u16, 0, 0, 0, 0, 0]));
        list.extend([&(if long { !0 } else { offset }).to_le_bytes(), name.as_bytes(), &extra].concat());
    }
    let (begin, len, count) = (bytes.len() as u64, list.len() as u64, entries.len() as u64);
    bytes.extend(list);
    if long {
        let end = bytes.len() as u64;
        bytes.extend([&b"PK\x06\x06"[..], &44u64.to_le_bytes(), &[0; 12]].concat());
        bytes.extend([count, count, len, begin].map(u64::to_le_bytes).concat());
        bytes.extend([&b"PK\x06\x07"[..], &[0; 4], &end.to_le_bytes(), &[1, 0, 0, 0]].concat());
    }
    let [len, begin] = if long { [!0; 2] } else { [len as u32, begin as u32] };
    bytes.extend([&b"PK\x05\x06"[..], &words(&[0, 0, count as u16, count as u16])].concat());
    bytes.extend([&len.to_le_bytes()[..], &begin.to_le_bytes(), &[0; 2]].concat());
    bytes
}

/// An archive as `torch.save` lays it out: the pickle, and storages by their keys.
pub(crate) fn archive(pickle: &[u8], storages: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let names: Vec<String> = storages.iter().map(|(key, _)| format!("archive/data/{key}")).collect();
    let mut entries = vec![("archive/data.pkl", pickle), ("archive/byteorder", b"little")];
    entries.extend(names.iter().zip(storages).map(|(name, (_, data))| (name.as_str(), data.as_slice())));
    entries.push(("archive/version", b"3\n"));
    zip(&entries, false)
}

fn singles(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn read(bytes: Vec<u8>) -> Result<TensorFile, String> {
    torch::from_bytes("model.pth", bytes).map_err(|error| error.to_string())
}

#[track_caller]
fn refused(bytes: Vec<u8>, reason: &str) {
    let said = read(bytes).expect_err(reason);
    assert!(said.contains(reason), "{said}");
    assert!(
        said.starts_with("model.pth: is a file of PyTorch that is not read here: ") && !said.contains('\n'),
        "{said}"
    );
    assert!(said.ends_with("prints the ten lines of Python that write its weights as safetensors"), "{said}");
}

/// A dictionary of one tensor.
fn one(shape: &[usize], strides: &[usize], (len, offset): (usize, usize)) -> Vec<u8> {
    Pickle::whole(|p| p.code(b"}").text("w").tensor("FloatStorage", "0", (len, offset), shape, strides).code(b"s"))
}

#[test]
fn dictionaries_of_tensors_are_read() {
    let pickle = Pickle::whole(|p| {
        let p = p.code(b"}q\x00(").text("epoch").int(300).text("lr").code(b"G\x3f\x50\x62\x4d\xd2\xf1\xa9\xfc");
        let p = p.text("model_ema").code(b"N").text("optimizer").code(b"}");
        let p = p.text("args").global("argparse", "Namespace").code(b")\x81}").text("model").text("tiny").code(b"sb");
        let p = p.text("model").ordered().code(b"q\x01(");
        let p = p.text("module.plain").tensor("FloatStorage", "0", (6, 0), &[2, 3], &[3, 1]);
        let p = p.text("module.turned").tensor("FloatStorage", "0", (6, 0), &[3, 2], &[1, 3]);
        let p = p.text("module.part").tensor("FloatStorage", "0", (6, 2), &[1, 4], &[99, 1]);
        let p = p.text("module.half").tensor("HalfStorage", "1", (2, 0), &[2], &[1]);
        let p = p.text("module.brain").tensor("BFloat16Storage", "2", (2, 0), &[2], &[1]);
        let p = p.text("module.steps").tensor("LongStorage", "3", (1, 0), &[], &[]);
        let p = p.text("module.learned").global("torch._utils", "_rebuild_parameter").code(b"(");
        let p = p.tensor("FloatStorage", "0", (6, 5), &[1], &[1]).code(b"\x88").ordered().code(b"tR");
        let p = p.text("module.none").tensor("FloatStorage", "0", (6, 0), &[0, 3], &[3, 1]);
        p.code(b"u}").text("_metadata").ordered().code(b"sbu")
    });
    let storages = [
        ("0", singles(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])),
        ("1", [0x3c00u16, 0xc000].map(u16::to_le_bytes).concat()),
        ("2", [0x3f80u16, 0xc000].map(u16::to_le_bytes).concat()),
        ("3", 77i64.to_le_bytes().to_vec()),
    ];
    let file = read(archive(&pickle, &storages)).unwrap_or_else(|said| panic!("{said}"));
    for (name, shape, values) in [
        ("module.plain", &[2, 3][..], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0][..]),
        ("module.turned", &[3, 2], &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]),
        ("module.part", &[1, 4], &[3.0, 4.0, 5.0, 6.0]),
        ("module.half", &[2], &[1.0, -2.0]),
        ("module.brain", &[2], &[1.0, -2.0]),
        ("module.steps", &[], &[77.0]),
        ("module.learned", &[1], &[6.0]),
        ("module.none", &[0, 3], &[]),
    ] {
        assert_eq!(file.numbers(name).unwrap(), (shape.to_vec(), values.to_vec()), "{name}");
    }
    assert_eq!(file.names().count(), 8);
    // Large files have their offsets elsewhere.
    let entries: [(&str, &[u8]); 2] = [("x/data.pkl", &one(&[1], &[1], (1, 0))), ("x/data/0", &singles(&[2.5]))];
    assert_eq!(read(zip(&entries, true)).unwrap().numbers("w").unwrap().1, [2.5]);
}

/// A pickle that Python's own pickler wrote, of a training's state as `torch.save` reduces it: tensors with metadata, an
/// optimizer that shares one, a Namespace, numbers of all widths, a set.
#[test]
fn what_pythons_pickler_writes_is_read() {
    let numbers = |count: usize| singles(&(0..count).map(|i| i as f32).collect::<Vec<f32>>());
    let storages = [("0", numbers(6)), ("1", numbers(300)), ("2", numbers(100_000))];
    let file =
        read(archive(include_bytes!("fixtures/state_dict.pkl"), &storages)).unwrap_or_else(|said| panic!("{said}"));
    for (name, shape) in [("a.weight", &[2, 3][..]), ("b", &[300]), ("big", &[100_000])] {
        let (found, values) = file.numbers(name).unwrap();
        assert_eq!(found, shape);
        assert!(values.iter().enumerate().all(|(i, value)| *value == i as f32), "{name}");
    }
    assert_eq!(file.names().count(), 3);
}

/// The order in which a model is looked for.
#[test]
fn the_average_comes_before_the_weights() {
    let of = |keys: &[(&str, usize)]| {
        let pickle = Pickle::whole(|p| {
            keys.iter().fold(p.code(b"}"), |p, (key, at)| {
                p.text(key).code(b"}").text("w").tensor("FloatStorage", "0", (4, *at), &[1], &[1]).code(b"ss")
            })
        });
        read(archive(&pickle, &[("0", singles(&[0.0, 1.0, 2.0, 3.0]))])).unwrap().numbers("w").unwrap().1[0]
    };
    assert_eq!(of(&[("model", 0), ("state_dict", 1), ("model_ema", 2), ("state_dict_ema", 3)]), 3.0);
    assert_eq!(of(&[("model", 0), ("state_dict", 1), ("model_ema", 2)]), 2.0);
    assert_eq!(of(&[("model", 0), ("state_dict", 1)]), 1.0);
}

#[test]
fn everything_else_is_refused() {
    let plain = [("0", singles(&[1.0, 2.0]))];
    let system = Pickle::whole(|p| p.global("os", "system").text("echo").code(b"\x85R"));
    refused(archive(&system, &[]), "it calls os.system, which no dictionary of tensors needs");
    let stacked = Pickle::whole(|p| p.text("builtins").text("eval").code(b"\x93").text("1").code(b"\x85R"));
    refused(archive(&stacked, &[]), "it calls builtins.eval");
    refused(archive(&Pickle::whole(|p| p.code(b"P")), &[]), "the instruction 0x50");
    let list = Pickle::whole(|p| p.code(b"}").text("weights").code(b"]s").text("step").int(3).code(b"s"));
    refused(
        archive(&list, &[]),
        "it has no tensors under state_dict_ema, model_ema, state_dict, model or at its top, where there is step, weights",
    );
    refused(archive(&one(&[3], &[1], (2, 0)), &plain), "w of shape [3] reaches beyond the 2 numbers");
    refused(archive(&one(&[2], &[1], (2, 1)), &plain), "reaches beyond");
    refused(archive(&one(&[2], &[1], (3, 0)), &plain), "3 numbers, which are not the 8 bytes");
    refused(archive(&one(&[1], &[1], (1, 0)), &[]), "it has no archive/data/0");
    // Repeated as often as memory does not hold.
    refused(archive(&one(&[4_000_000_000, 4_000_000_000], &[0, 0], (2, 0)), &plain), "reaches beyond");
    refused(archive(&one(&[4_000_000_000], &[0], (2, 0)), &plain), "reaches beyond");
    let whole = archive(&one(&[2], &[1], (2, 0)), &plain);
    refused(whole[..whole.len() - 30].to_vec(), "was cut off");
    let mut turned = whole.clone();
    let at = turned.windows(4).position(|word| word == 2f32.to_le_bytes()).unwrap();
    turned[at] ^= 1;
    refused(turned, "archive/data/0 in it is damaged");
    refused(zip(&[("archive/model.json", b"{}")], false), "has no data.pkl");
    refused(b"PK\x03\x04 and so on".to_vec(), "was cut off");
    let big: [(&str, &[u8]); 2] = [("a/data.pkl", &one(&[1], &[1], (1, 0))), ("a/byteorder", b"big")];
    refused(zip(&big, false), "do not begin with their lowest byte");
}

/// Little that would become much: each is answered at once, in little memory.
#[test]
fn bombs_do_not_go_off() {
    let begin = Instant::now();
    // Lists of ten of the list before, ten deep; dictionaries in themselves; names repeated; marks without end.
    let deep = Pickle::whole(|p| {
        (0..200)
            .fold(p.code(b"]q\x00"), |p, _| p.code(b"(h\x00h\x00h\x00h\x00h\x00h\x00h\x00h\x00t0]q\x00(h\x00h\x00e"))
    });
    refused(archive(&deep, &[]), "it holds no dictionary");
    let own = Pickle::whole(|p| p.code(b"}q\x00").text("model").code(b"h\x00s"));
    refused(archive(&own, &[]), "lie in one another more than 3 deep");
    let marks = Pickle::whole(|p| p.code(&[b'('; 100_000]).code(&[b't'; 100_000]));
    refused(archive(&marks, &[]), "it holds no dictionary");
    let many = Pickle::whole(|p| p.code(b"Nq\x00").code(&b"h\x00".repeat(3_000_000)));
    refused(archive(&many, &[]), "more than 2097152 values");
    let long = Pickle::whole(|p| p.code(b"X\xff\xff\xff\xff"));
    refused(archive(&long, &[]), "ends in the middle");
    // One call's arguments, called again and again: a dozen bytes of pickle for each.
    let views = Pickle::whole(|p| {
        let p = p.global("torch._utils", "_rebuild_tensor_v2").code(b"q\x000(").storage("FloatStorage", "0", 1);
        let p = p.int(0).tuple(&[1; 16]).tuple(&[1; 16]).code(b"tq\x010");
        p.code(b"](").code(&b"h\x00h\x01R".repeat(70_000)).code(b"e")
    });
    refused(archive(&views, &[]), "more than 65536 tensors");
    // One storage, in as many tensors as would be a thousand times the file.
    let size = 40_000;
    let turned = Pickle::whole(|p| {
        (0..1000).fold(p.code(b"}"), |p, at| {
            p.text(&format!("w{at}")).tensor("FloatStorage", "0", (size, 0), &[2, size / 2], &[1, 2]).code(b"s")
        })
    });
    refused(archive(&turned, &[("0", singles(&vec![0.5; size]))]), "overlap more than those of a model");
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
}

/// The tensors of a file, as `torch.save` would have written them below `prefix` in the dictionary `key`.
fn saved(file: &TensorFile, key: &str, prefix: &str) -> Vec<u8> {
    let mut storages = Vec::new();
    let pickle = Pickle::whole(|p| {
        let p = p.code(b"}(").text("epoch").int(7).text(key).ordered().code(b"(");
        let p = file.names().fold(p, |p, name| {
            let (shape, values) = file.numbers(name).unwrap();
            let strides: Vec<usize> = (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect();
            let (id, len) = (storages.len().to_string(), values.len());
            storages.push((id.clone(), singles(&values)));
            p.text(&format!("{prefix}{name}")).tensor("FloatStorage", &id, (len, 0), &shape, &strides)
        });
        p.code(b"uu")
    });
    let storages: Vec<(&str, Vec<u8>)> = storages.iter().map(|(key, data)| (key.as_str(), data.clone())).collect();
    archive(&pickle, &storages)
}

/// A checkpoint of the authors' training, as one process among several wrote it.
#[test]
fn a_checkpoint_of_pytorch_is_a_model() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path();
    for name in ["hkunlp_evit_lara", "hf_vit", "timm_pvt_v2"] {
        let file = TensorFile::open(golden(name).join("model.safetensors")).unwrap();
        std::fs::copy(golden(name).join("config.json"), folder.join("config.json")).unwrap();
        std::fs::write(folder.join("checkpoint.pth"), saved(&file, "model", "module.")).unwrap();
        // As older models lie on the hub.
        std::fs::write(folder.join("pytorch_model.bin"), saved(&file, "state_dict", "")).unwrap();
        let expected = TrainedModel::open(golden(name)).unwrap();
        for path in [folder.join("checkpoint.pth"), folder.to_path_buf()] {
            let found = TrainedModel::open(path).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!((found.library, &found.config), (expected.library, &expected.config), "{name}");
            let all = |file: &TensorFile| {
                file.names().map(|name| (name.to_owned(), file.numbers(name).unwrap())).collect::<Vec<_>>()
            };
            assert!(all(&found.weights) == all(&expected.weights), "{name}");
        }
    }
}

#[test]
fn convert_reads_pytorch_or_says_how_to_write_it() {
    let temp = tempfile::tempdir().unwrap();
    let file = TensorFile::open(golden("timm_vit_token").join("model.safetensors")).unwrap();
    std::fs::copy(golden("timm_vit_token").join("config.json"), temp.path().join("config.json")).unwrap();
    std::fs::write(temp.path().join("model.pth"), saved(&file, "state_dict", "module.")).unwrap();
    output(temp.path(), &["convert", "model.pth", "out.safetensors", "--to", "timm"]);
    let back = TensorFile::open(temp.path().join("out.safetensors")).unwrap();
    assert!(
        back.names().eq(file.names())
            && back.names().all(|name| back.numbers(name).unwrap() == file.numbers(name).unwrap())
    );
    let hostile = Pickle::whole(|p| p.global("os", "system").text("echo").code(b"\x85R"));
    for bytes in [archive(&hostile, &[]), b"PK\x03\x04 and so on".to_vec(), b"\x80\x02}q\x00(X\x01\0\0\0aNu.".to_vec()]
    {
        std::fs::write(temp.path().join("model.pth"), bytes).unwrap();
        let assert = lara(temp.path(), &["convert", "model.pth", "out", "--to", "lara"]).assert().code(2);
        let (said, script) = (&assert.get_output().stderr, &assert.get_output().stdout);
        let said = String::from_utf8_lossy(said);
        assert!(said.contains("is a file of PyTorch"), "{said}");
        let script = String::from_utf8_lossy(script);
        assert!(script.contains("weights_only=True") && script.contains("\"model.safetensors\""), "{script}");
        assert_eq!(script.trim_end().lines().count(), 10, "{script}");
    }
}
