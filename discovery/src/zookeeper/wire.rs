//! The messages of ZooKeeper's protocol, as far as they are needed here: numbers in
//! network order, texts and bytes behind their length.

/// The operations, by their numbers.
pub(super) mod operation {
    pub(crate) const CREATE: i32 = 1;
    pub(crate) const DELETE: i32 = 2;
    pub(crate) const EXISTS: i32 = 3;
    pub(crate) const GET_DATA: i32 = 4;
    pub(crate) const SET_DATA: i32 = 5;
    pub(crate) const GET_CHILDREN: i32 = 8;
    pub(crate) const SYNC: i32 = 9;
    pub(crate) const PING: i32 = 11;
    pub(crate) const CHECK: i32 = 13;
    pub(crate) const MULTI: i32 = 14;
    pub(crate) const AUTH: i32 = 100;
    pub(crate) const ADD_WATCH: i32 = 106;
    pub(crate) const CLOSE_SESSION: i32 = -11;
}

/// The numbers of answers that belong to no request, and of requests that have a fixed
/// one.
pub(super) mod number {
    pub(crate) const EVENT: i32 = -1;
    pub(crate) const PING: i32 = -2;
    pub(crate) const AUTH: i32 = -4;
}

/// Makes a node be what it is whatever its version.
pub(super) const ANY_VERSION: i32 = -1;

/// A message in the making.
#[derive(Clone, Debug, Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    pub(super) fn int(mut self, value: i32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(super) fn long(mut self, value: i64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(super) fn boolean(mut self, value: bool) -> Self {
        self.0.push(value.into());
        self
    }

    /// Of at most 2 GiB, which nothing here comes near.
    pub(super) fn bytes(self, value: &[u8]) -> Self {
        let mut message = self.int(i32::try_from(value.len()).unwrap_or(i32::MAX));
        message.0.extend(value);
        message
    }

    pub(super) fn text(self, value: &str) -> Self {
        self.bytes(value.as_bytes())
    }

    pub(super) fn part(mut self, value: &Self) -> Self {
        self.0.extend(&value.0);
        self
    }

    /// The bytes with their count before them, as they go over the wire.
    pub(super) fn into_frame(self) -> Vec<u8> {
        Self::default().bytes(&self.0).0
    }
}

/// Who may do what with a node.
#[derive(Clone, Copy, Debug)]
pub(super) enum Access {
    /// Everybody everything.
    Open,
    /// Everything, whoever creates it; nobody else anything.
    Creator,
}

impl Access {
    const ALL: i32 = 31;

    fn message(self) -> Message {
        let (scheme, id) = match self {
            Self::Open => ("world", "anyone"),
            Self::Creator => ("auth", ""),
        };
        Message::default().int(1).int(Self::ALL).text(scheme).text(id)
    }
}

/// How long a node lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Persistent,
    /// As long as the session that created it.
    Ephemeral,
}

pub(super) fn create(path: &str, data: &[u8], access: Access, life: Life) -> Message {
    let access = access.message();
    Message::default().text(path).bytes(data).part(&access).int((life == Life::Ephemeral).into())
}

pub(super) fn set_data(path: &str, data: &[u8], version: i32) -> Message {
    Message::default().text(path).bytes(data).int(version)
}

/// The same for a check of a version.
pub(super) fn delete(path: &str, version: i32) -> Message {
    Message::default().text(path).int(version)
}

/// To read without being told of changes.
pub(super) fn read(path: &str) -> Message {
    Message::default().text(path).boolean(false)
}

pub(super) fn sync(path: &str) -> Message {
    Message::default().text(path)
}

/// To be told of every change of a node and of all below it, as long as the connection
/// lasts.
pub(super) fn add_watch(path: &str) -> Message {
    const PERSISTENT_RECURSIVE: i32 = 1;
    Message::default().text(path).int(PERSISTENT_RECURSIVE)
}

pub(super) fn digest(user_and_password: &str) -> Message {
    Message::default().int(0).text("digest").text(user_and_password)
}

/// Operations that are done all or none.
pub(super) fn multi(operations: &[(i32, Message)]) -> Message {
    let head = |message: Message, operation, is_end| message.int(operation).boolean(is_end).int(-1);
    let parts = operations.iter().fold(Message::default(), |message, (operation, part)| {
        head(message, *operation, false).part(part)
    });
    head(parts, -1, true)
}

/// An answer that is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its answer is not what the protocol says: is it ZooKeeper, 3.6 or later?")]
pub(super) struct Garbled;

/// The fields of an answer, read from its begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Garbled> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Garbled)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const COUNT: usize>(&mut self) -> Result<[u8; COUNT], Garbled> {
        self.take(COUNT)?.try_into().map_err(|_| Garbled)
    }

    pub(super) fn int(&mut self) -> Result<i32, Garbled> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn long(&mut self) -> Result<i64, Garbled> {
        self.array().map(i64::from_be_bytes)
    }

    /// Bytes that are not there are none.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Garbled> {
        match self.int()? {
            -1 => Ok(&[]),
            count => self.take(usize::try_from(count).map_err(|_| Garbled)?),
        }
    }

    /// A list of texts, one after the other. What is not UTF-8 is kept, as far as that
    /// goes: it is told to people.
    pub(super) fn each_text(&mut self, mut take: impl FnMut(&str)) -> Result<(), Garbled> {
        for _ in 0..self.int()? {
            take(&String::from_utf8_lossy(self.bytes()?));
        }
        Ok(())
    }

    pub(super) fn stat(&mut self) -> Result<Stat, Garbled> {
        let (_created, modified) = (self.long()?, self.long()?);
        let _times = (self.long()?, self.long()?);
        let version = self.int()?;
        let _versions_of_children_and_access = (self.int()?, self.int()?);
        let owner = self.long()?;
        let _lengths_and_last_child = (self.int()?, self.int()?, self.long()?);
        Ok(Stat { modified: modified.cast_unsigned(), version, owner })
    }

    /// The first failure of operations that were to be done all or none.
    pub(super) fn first_failure(&mut self) -> Result<Option<i32>, Garbled> {
        loop {
            let (operation, is_end, _) = (self.int()?, self.array::<1>()? != [0], self.int()?);
            match operation {
                _ if is_end => return Ok(None),
                -1 => match self.int()? {
                    0 => {}
                    failure => return Ok(Some(failure)),
                },
                operation::CREATE => _ = self.bytes()?,
                operation::SET_DATA => _ = self.stat()?,
                operation::DELETE | operation::CHECK => {}
                _ => return Err(Garbled),
            }
        }
    }
}

/// What is known of a node beside its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// The number of the last write to it, in the order of all writes.
    pub(super) modified: u64,
    /// How often it was written to since it was created.
    pub(super) version: i32,
    /// The session that it ends with; 0 for none.
    pub(super) owner: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(fields: &mut Fields<'_>) -> Result<Vec<String>, Garbled> {
        let mut texts = Vec::new();
        fields.each_text(|text| texts.push(text.to_owned())).map(|()| texts)
    }

    fn stat(message: Message) -> Message {
        let message = message.long(5).long(7).long(0).long(0).int(3).int(0).int(0);
        message.long(9).int(0).int(0).long(0)
    }

    #[test]
    fn what_is_written_is_read() {
        let message = Message::default().int(-1).long(-2).text("ä").int(2).text("a").text("b");
        let bytes = stat(message).0;
        let mut fields = Fields::of(&bytes);
        assert_eq!((fields.int(), fields.long()), (Ok(-1), Ok(-2)));
        assert_eq!(fields.bytes(), Ok("ä".as_bytes()));
        assert_eq!(texts(&mut fields), Ok(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(fields.stat(), Ok(Stat { modified: 7, version: 3, owner: 9 }));
        assert_eq!(fields.int(), Err(Garbled));
    }

    #[test]
    fn every_cut_and_every_absurd_length_is_garbled_and_allocates_nothing() {
        let bytes = stat(Message::default().int(2).text("a").text("b")).0;
        for length in 0..bytes.len() {
            let mut fields = Fields::of(&bytes[..length]);
            let read = texts(&mut fields).and_then(|_| fields.stat());
            assert_eq!(read, Err(Garbled), "{length}");
        }
        for length in [-2, i32::MIN, i32::MAX, 5] {
            let bytes = Message::default().int(length).int(0).0;
            assert_eq!(Fields::of(&bytes).bytes(), Err(Garbled), "{length}");
            let many = Message::default().int(i32::MAX).int(length).0;
            assert_eq!(texts(&mut Fields::of(&many)), Err(Garbled), "{length}");
        }
    }

    #[test]
    fn the_first_failure_of_several_operations_is_found() {
        let head = |message: Message, operation, is_end, code: i32| {
            message.int(operation).boolean(is_end).int(code)
        };
        let done = stat(head(Message::default(), operation::SET_DATA, false, 0));
        let done = head(done, operation::CREATE, false, 0).text("/a");
        let done = head(head(done, operation::CHECK, false, 0), -1, true, -1).0;
        assert_eq!(Fields::of(&done).first_failure(), Ok(None));
        let failed = [0, -110, -2]
            .into_iter()
            .fold(Message::default(), |message, code| head(message, -1, false, code).int(code));
        let failed = head(failed, -1, true, -1).0;
        assert_eq!(Fields::of(&failed).first_failure(), Ok(Some(-110)));
        let unknown = head(Message::default(), 77, false, 0).0;
        assert_eq!(Fields::of(&unknown).first_failure(), Err(Garbled));
    }
}
