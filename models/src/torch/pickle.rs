//! Pickles as `torch.save` writes them for a dictionary of tensors. Nothing in one is ever run: what is called is looked up in
//! a short list of names, and every other name is refused.
//!
//! Values lie in one list and refer to each other by their place in it, so what a pickle remembers and repeats takes no more
//! memory than it has bytes, and nothing here calls itself.

use std::collections::HashMap;

use safetensors::Dtype;

/// The place of a value.
pub(super) type Id = usize;

/// Values, and references on the stack, that a pickle may have: more than any model's.
const MOST: usize = 1 << 21;

/// Tensors that it may have: each is a view with sizes of its own, so it takes more memory than the bytes that call it.
const MOST_TENSORS: usize = 1 << 16;

/// Most dimensions of a tensor.
const MOST_DIMENSIONS: usize = 16;

/// The longest name of a storage; PyTorch numbers them.
const LONGEST_KEY: usize = 32;

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// `None`, a truth value, a number, or an object of which nothing is used.
    Other,
    /// A whole number.
    Int(i64),
    Text(String),
    /// Of tuples, lists and sets what is in them.
    Items(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A name that is known.
    Known(Known),
    Storage(Storage),
    Tensor(Box<Strided>),
}

/// Names that a pickle may call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Known {
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2`
    Tensor,
    /// `torch._utils._rebuild_parameter`
    Parameter,
    /// A type of storage.
    Storage(Dtype),
    /// What training leaves in its files beside tensors; nothing of it is used.
    Inert,
}

/// Numbers in an entry of the archive.
#[derive(Clone, Debug)]
pub(super) struct Storage {
    pub(super) dtype: Dtype,
    /// The entry's name below `data/`.
    pub(super) key: String,
    /// How many there are.
    pub(super) len: usize,
}

/// A view of a storage.
#[derive(Clone, Debug)]
pub(super) struct Strided {
    pub(super) storage: Storage,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// What a name means.
fn known(module: &str, name: &str) -> Result<Known, String> {
    Ok(match (module, name) {
        ("collections", "OrderedDict") => Known::OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2") => Known::Tensor,
        ("torch._utils", "_rebuild_parameter") => Known::Parameter,
        ("argparse", "Namespace") | ("torch", "device" | "Size") | ("builtins" | "__builtin__", "set") => Known::Inert,
        ("torch", "FloatStorage") => Known::Storage(Dtype::F32),
        ("torch", "HalfStorage") => Known::Storage(Dtype::F16),
        ("torch", "BFloat16Storage") => Known::Storage(Dtype::BF16),
        ("torch", "DoubleStorage") => Known::Storage(Dtype::F64),
        ("torch", "LongStorage") => Known::Storage(Dtype::I64),
        ("torch", "IntStorage") => Known::Storage(Dtype::I32),
        ("torch", "ShortStorage") => Known::Storage(Dtype::I16),
        ("torch", "CharStorage") => Known::Storage(Dtype::I8),
        ("torch", "ByteStorage") => Known::Storage(Dtype::U8),
        ("torch", "BoolStorage") => Known::Storage(Dtype::BOOL),
        _ => return Err(format!("it calls {module}.{name}, which no dictionary of tensors needs")),
    })
}

/// A pickle that was read: all values, and the one that it is.
pub(super) struct Pickle {
    values: Vec<Value>,
    pub(super) top: Id,
}

impl Pickle {
    /// Reads a pickle of at most as many values as a model needs.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut machine = Machine {
            bytes,
            at: 0,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            tensors: 0,
        };
        loop {
            let code = machine.take(1)?[0];
            if code == b'.' {
                let top = machine.pop()?;
                return Ok(Pickle { values: machine.values, top });
            }
            machine.step(code)?;
            if machine.values.len().max(machine.stack.len()).max(machine.memo.len()) > MOST {
                return Err(format!("its pickle has more than {MOST} values"));
            }
        }
    }

    pub(super) fn value(&self, id: Id) -> &Value {
        &self.values[id]
    }

    pub(super) fn text(&self, id: Id) -> Option<&str> {
        if let Value::Text(text) = self.value(id) { Some(text) } else { None }
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Where the stack was as a mark was set.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    /// How many there are so far.
    tensors: usize,
}

impl<'a> Machine<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or("its pickle ends in the middle")?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// A number of up to 8 bytes, without a sign.
    fn count(&mut self, width: usize) -> Result<u64, String> {
        Ok(self.take(width)?.iter().rev().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)))
    }

    /// A text behind its length, which has this many bytes.
    fn text(&mut self, width: usize) -> Result<String, String> {
        let len = usize::try_from(self.count(width)?).map_err(|_| "its pickle has a text without an end")?;
        Ok(String::from_utf8_lossy(self.take(len)?).into_owned())
    }

    fn line(&mut self) -> Result<String, String> {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().position(|byte| *byte == b'\n').ok_or("its pickle ends in the middle")?;
        let line = String::from_utf8_lossy(&rest[..len]).into_owned();
        self.at += len + 1;
        Ok(line)
    }

    fn pop(&mut self) -> Result<Id, String> {
        // What lies below a mark belongs to what is being made.
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() > floor { self.stack.pop().ok_or_else(broken) } else { Err(broken()) }
    }

    fn top(&self) -> Result<Id, String> {
        self.stack.last().copied().ok_or_else(broken)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().filter(|mark| *mark <= self.stack.len()).ok_or_else(broken)?;
        Ok(self.stack.split_off(mark))
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    fn items(&self, id: Id) -> Result<&[Id], String> {
        if let Value::Items(items) = &self.values[id] { Ok(items) } else { Err(broken()) }
    }

    fn step(&mut self, code: u8) -> Result<(), String> {
        match code {
            // Version, frame.
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'}' => self.push(Value::Dict(Vec::new())),
            b']' | b')' | 0x8f => self.push(Value::Items(Vec::new())),
            b'(' => self.marks.push(self.stack.len()),
            b'N' | 0x88 | 0x89 => self.push(Value::Other),
            b'G' => {
                self.take(8)?;
                self.push(Value::Other);
            }
            b'K' | b'M' => {
                let number = self.count(if code == b'K' { 1 } else { 2 })?;
                self.push(Value::Int(number as i64));
            }
            b'J' => {
                let number = self.count(4)? as u32;
                self.push(Value::Int(i64::from(number.cast_signed())));
            }
            0x8a => self.long()?,
            b'X' | b'T' | b'B' => self.push_text(4)?,
            0x8c | b'U' | b'C' => self.push_text(1)?,
            0x8d | 0x8e => self.push_text(8)?,
            b'q' | b'r' => {
                let key = self.count(if code == b'q' { 1 } else { 4 })?;
                self.memo.insert(key, self.top()?);
            }
            0x94 => drop(self.memo.insert(self.memo.len() as u64, self.top()?)),
            b'h' | b'j' => {
                let key = self.count(if code == b'h' { 1 } else { 4 })?;
                self.stack.push(*self.memo.get(&key).ok_or_else(broken)?);
            }
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Value::Items(items));
            }
            0x85..=0x87 => {
                let mut items = (0..code - 0x84).map(|_| self.pop()).collect::<Result<Vec<Id>, String>>()?;
                items.reverse();
                self.push(Value::Items(items));
            }
            b'0' => drop(self.pop()?),
            _ => return self.step_object(code),
        }
        Ok(())
    }

    /// Steps that put things together.
    fn step_object(&mut self, code: u8) -> Result<(), String> {
        match code {
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(vec![key, value])
            }
            b'u' => {
                let pairs = self.pop_to_mark()?;
                self.set(pairs)
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])
            }
            b'e' | 0x90 => {
                let items = self.pop_to_mark()?;
                self.append(items)
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Value::Known(known(&module, &name)?));
                Ok(())
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) = (&self.values[module], &self.values[name]) else {
                    return Err(broken());
                };
                let known = known(module, name)?;
                self.push(Value::Known(known));
                Ok(())
            }
            b'R' | 0x81 => self.call(),
            b'b' => {
                // What a dictionary or an inert object is told of itself is not used.
                self.pop()?;
                match &self.values[self.top()?] {
                    Value::Dict(_) | Value::Other => Ok(()),
                    _ => Err("it gives an object a state, which no dictionary of tensors needs".to_owned()),
                }
            }
            b'Q' => self.storage(),
            _ => Err(format!("its pickle has the instruction {code:#04x}, which no dictionary of tensors needs")),
        }
    }

    fn push_text(&mut self, width: usize) -> Result<(), String> {
        let text = self.text(width)?;
        self.push(Value::Text(text));
        Ok(())
    }

    /// A whole number of any width; one that is too wide is of no use.
    fn long(&mut self) -> Result<(), String> {
        let width = self.count(1)? as usize;
        let bytes = self.take(width)?;
        let negative = bytes.last().is_some_and(|byte| *byte >= 0x80);
        let mut word = [if negative { 0xff } else { 0 }; 8];
        let value = match word.get_mut(..width) {
            Some(low) => {
                low.copy_from_slice(bytes);
                Value::Int(i64::from_le_bytes(word))
            }
            None => Value::Other,
        };
        self.push(value);
        Ok(())
    }

    fn set(&mut self, pairs: Vec<Id>) -> Result<(), String> {
        let top = self.top()?;
        let Value::Dict(dict) = &mut self.values[top] else { return Err(broken()) };
        let (pairs, []) = pairs.as_chunks::<2>() else { return Err(broken()) };
        dict.extend(pairs.iter().map(|&[key, value]| (key, value)));
        Ok(())
    }

    fn append(&mut self, more: Vec<Id>) -> Result<(), String> {
        let top = self.top()?;
        let Value::Items(items) = &mut self.values[top] else { return Err(broken()) };
        items.extend(more);
        Ok(())
    }

    fn call(&mut self) -> Result<(), String> {
        let (arguments, what) = (self.pop()?, self.pop()?);
        let Value::Known(what) = self.values[what] else {
            return Err("it calls what is no name, which no dictionary of tensors needs".to_owned());
        };
        match what {
            Known::OrderedDict if self.items(arguments)?.is_empty() => self.push(Value::Dict(Vec::new())),
            Known::Inert => self.push(Value::Other),
            Known::Tensor => {
                self.tensors += 1;
                if self.tensors > MOST_TENSORS {
                    return Err(format!("it has more than {MOST_TENSORS} tensors"));
                }
                let tensor = self.tensor(arguments)?;
                self.push(Value::Tensor(Box::new(tensor)));
            }
            Known::Parameter => {
                let tensor = *self.items(arguments)?.first().ok_or_else(broken)?;
                self.stack.push(tensor);
            }
            Known::OrderedDict | Known::Storage(_) => {
                return Err("it makes a dictionary or a storage as no dictionary of tensors needs it".to_owned());
            }
        }
        Ok(())
    }

    fn whole(&self, id: Id) -> Result<usize, String> {
        match self.values[id] {
            Value::Int(number) => usize::try_from(number).map_err(|_| "it has a tensor with a size below 0".to_owned()),
            _ => Err("it has a tensor with a size that is no whole number".to_owned()),
        }
    }

    /// The tensor of (storage, offset, sizes, strides, ..).
    fn tensor(&self, arguments: Id) -> Result<Strided, String> {
        let &[storage, offset, shape, strides, ..] = self.items(arguments)? else { return Err(broken()) };
        let Value::Storage(storage) = &self.values[storage] else { return Err(broken()) };
        let sizes = |id| self.items(id)?.iter().map(|&size| self.whole(size)).collect::<Result<Vec<usize>, String>>();
        if self.items(shape)?.len() != self.items(strides)?.len() || self.items(shape)?.len() > MOST_DIMENSIONS {
            return Err(broken());
        }
        let (shape, strides) = (sizes(shape)?, sizes(strides)?);
        Ok(Strided { storage: storage.clone(), offset: self.whole(offset)?, shape, strides })
    }

    /// The storage of ("storage", type, key, device, count).
    fn storage(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let &[kind, dtype, key, _, len] = self.items(id)? else { return Err(broken()) };
        let (Value::Text(kind), Value::Known(Known::Storage(dtype)), Value::Text(key)) =
            (&self.values[kind], &self.values[dtype], &self.values[key])
        else {
            return Err(broken());
        };
        // The name goes into every tensor of the storage.
        if kind != "storage" || key.len() > LONGEST_KEY {
            return Err(broken());
        }
        let storage = Storage { dtype: *dtype, key: key.clone(), len: self.whole(len)? };
        self.push(Value::Storage(storage));
        Ok(())
    }
}

fn broken() -> String {
    "its pickle is damaged".to_owned()
}
