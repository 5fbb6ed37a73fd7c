//! The sandbox's chat completions: a stand-in for a paid AI service, in the wire format that many
//! of these share.
//!
//! Promise: the same request has the same answer, byte for byte, in every process and at any time.
//! Each answer says that the sandbox wrote it. Any key is accepted, and so is any model. Parameters
//! that change nothing here, such as `top_p`, are ignored. `cli/sandbox.rs` serves it over HTTP.

use serde_json::{Map, Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::news::sandbox::SandboxAnswer;

/// Its path. The method is POST.
pub const CHAT_PATH: &str = "/v1/chat/completions";

/// The largest body of a request, in bytes.
pub const LARGEST_CHAT: usize = 1 << 20;

/// The time in every answer, 2026-01-01T00:00:00Z. With the real time no answer would come twice.
const CREATED: u64 = 1_767_225_600;

const ROLES: [&str; 6] = [
    "system",
    "developer",
    "user",
    "assistant",
    "tool",
    "function",
];

const OPINIONS: [&str; 8] = [
    "It depends on how often somebody asks.",
    "Yes, as long as nothing changes.",
    "No, unless you like to pay twice.",
    "Count first, then decide.",
    "The short answer is the better one.",
    "Three people know, and two of them disagree.",
    "Most of it is written on the label.",
    "It works in practice, and in theory on some days.",
];

const ADVICE: [&str; 8] = [
    "Keep the answer for whoever asks next.",
    "Measure it, and the doubt is gone.",
    "Begin with the part that is slow.",
    "Write it down before you forget it.",
    "Ask again tomorrow, when it may have changed.",
    "Give the second one a name of its own.",
    "Try it with one before you try it with a thousand.",
    "Leave out whatever nobody reads.",
];

/// Answers a POST with these headers and this body. `None`: the header is missing.
pub fn answer(
    authorization: Option<&str>,
    content_type: Option<&str>,
    body: &[u8],
) -> SandboxAnswer {
    if !has_key(authorization) {
        let message = "No API key: send any text as `Authorization: Bearer KEY`.";
        return error(401, INVALID, None, Some("invalid_api_key"), message);
    }
    if !is_json(content_type) {
        let message = "The body has to be JSON: send `Content-Type: application/json`.";
        return error(415, INVALID, None, None, message);
    }
    match Chat::read(body) {
        Ok(chat) => SandboxAnswer::new(200, &chat.completion()),
        Err(Wrong { param, message }) => error(400, INVALID, param.as_deref(), None, &message),
    }
}

/// The answer to another method than POST.
pub fn wrong_method() -> SandboxAnswer {
    error(405, INVALID, None, None, "Only POST is allowed here.")
}

/// The answer to a body of more than [`LARGEST_CHAT`] bytes, or to one that ended early.
pub fn unreadable(is_too_large: bool) -> SandboxAnswer {
    match is_too_large {
        true => error(413, INVALID, None, None, "The body has more than 1 MiB."),
        false => error(400, INVALID, None, None, "The body ended early."),
    }
}

/// One of the errors of such a service: the `number`-th, in turn.
pub fn failure(number: u64) -> SandboxAnswer {
    if number.is_multiple_of(2) {
        let message = "The sandbox was told to fail.";
        return error(500, "server_error", None, None, message);
    }
    let (code, message) = ("rate_limit_exceeded", "The sandbox was told to be spent.");
    error(429, "requests", None, Some(code), message)
}

const INVALID: &str = "invalid_request_error";

fn error(
    status: u16,
    kind: &str,
    param: Option<&str>,
    code: Option<&str>,
    message: &str,
) -> SandboxAnswer {
    let error = json!({"message": message, "type": kind, "param": param, "code": code});
    SandboxAnswer::new(status, &json!({"error": error}))
}

fn has_key(authorization: Option<&str>) -> bool {
    let parts = authorization.and_then(|value| value.trim().split_once(' '));
    parts.is_some_and(|(scheme, key)| {
        scheme.eq_ignore_ascii_case("Bearer") && !key.trim().is_empty()
    })
}

fn is_json(content_type: Option<&str>) -> bool {
    let essence = content_type.and_then(|kind| kind.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

/// What is wrong with a request: the parameter, if it is one, and a message.
struct Wrong {
    param: Option<String>,
    message: String,
}

impl Wrong {
    fn param(name: &str, expected: &str) -> Wrong {
        Wrong {
            param: Some(name.to_owned()),
            message: format!("`{name}` has to be {expected}."),
        }
    }
}

/// A valid request.
struct Chat {
    model: String,
    /// Role and text of each message.
    messages: Vec<(String, String)>,
    /// The most tokens of one choice.
    limit: Option<u64>,
    choices: u64,
}

impl Chat {
    fn read(body: &[u8]) -> Result<Chat, Wrong> {
        let request: Map<String, Value> = serde_json::from_slice(body).map_err(|error| Wrong {
            param: None,
            message: format!("The body has to be a JSON object: {error}."),
        })?;
        let request = Request(&request);
        let model = request.given("model").and_then(Value::as_str);
        let model = model.filter(|model| !model.is_empty());
        let model = model.ok_or_else(|| Wrong::param("model", "the name of a model"))?;
        let messages = request.given("messages").and_then(Value::as_array);
        let messages = messages.filter(|messages| !messages.is_empty());
        let messages = messages
            .ok_or_else(|| Wrong::param("messages", "an array of at least one message"))?
            .iter()
            .enumerate()
            .map(|(at, message)| read_message(at, message))
            .collect::<Result<_, _>>()?;
        request.number("temperature", 2.0)?;
        request.number("top_p", 1.0)?;
        match request.given("stream") {
            None | Some(Value::Bool(false)) => {}
            Some(Value::Bool(true)) => {
                return Err(Wrong {
                    param: Some("stream".to_owned()),
                    message: "The sandbox does not stream: leave `stream` out.".to_owned(),
                });
            }
            Some(_) => return Err(Wrong::param("stream", "false")),
        }
        // Two names for one limit, an old and a new one.
        let old = request.count("max_tokens", u64::MAX)?;
        let new = request.count("max_completion_tokens", u64::MAX)?;
        Ok(Chat {
            model: model.to_owned(),
            messages,
            limit: new.or(old),
            choices: request.count("n", 128)?.unwrap_or(1),
        })
    }

    fn completion(&self) -> Value {
        let prompt: usize = self.messages.iter().map(|(_, text)| tokens(text)).sum();
        let mut completion = 0;
        let choices: Vec<Value> = (0..self.choices)
            .map(|index| {
                let (text, is_whole) = self.text(index);
                completion += tokens(&text);
                json!({
                    "index": index,
                    "message": {"role": "assistant", "content": text},
                    "finish_reason": if is_whole { "stop" } else { "length" },
                })
            })
            .collect();
        json!({
            "id": format!("chatcmpl-{:016x}", self.seed(0)),
            "object": "chat.completion",
            "created": CREATED,
            "model": self.model,
            "choices": choices,
            "usage": {
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "total_tokens": prompt + completion,
            },
        })
    }

    /// The text of a choice, and whether it is whole.
    fn text(&self, index: u64) -> (String, bool) {
        let seed = self.seed(index);
        let pick = |from: &[&'static str; 8], shift: u32| from[(seed >> shift) as usize % 8];
        let mut of_users = self
            .messages
            .iter()
            .rev()
            .filter(|(role, _)| role == "user");
        let asked = of_users.next().or(self.messages.last());
        let text = format!(
            "Sandbox answer {:08x}: {} {} You asked: {}",
            seed as u32,
            pick(&OPINIONS, 40),
            pick(&ADVICE, 50),
            asked.map_or("", |(_, text)| text)
        );
        let limit = self.limit.and_then(|limit| usize::try_from(limit).ok());
        let end = limit.and_then(|limit| ends_of_tokens(&text).nth(limit.saturating_sub(1)));
        match end {
            Some(end) if end < text.trim_end().len() => (text[..end].to_owned(), false),
            _ => (text, true),
        }
    }

    /// A number that stands for the question and the choice. Limits are no part of it, so that a
    /// cut answer is the beginning of the whole one.
    fn seed(&self, index: u64) -> u64 {
        let question = json!([self.model, self.messages, index]);
        xxh3_64(question.to_string().as_bytes())
    }
}

/// The members of a request. Null counts as missing.
struct Request<'r>(&'r Map<String, Value>);

impl<'r> Request<'r> {
    fn given(&self, name: &str) -> Option<&'r Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn number(&self, name: &str, most: f64) -> Result<(), Wrong> {
        let is_valid = self.given(name).is_none_or(|value| {
            let number = value.as_f64();
            number.is_some_and(|number| (0.0..=most).contains(&number))
        });
        match is_valid {
            true => Ok(()),
            false => Err(Wrong::param(name, &format!("a number from 0 to {most}"))),
        }
    }

    fn count(&self, name: &str, most: u64) -> Result<Option<u64>, Wrong> {
        let Some(value) = self.given(name) else {
            return Ok(None);
        };
        match value.as_u64() {
            Some(count) if (1..=most).contains(&count) => Ok(Some(count)),
            _ if most == u64::MAX => Err(Wrong::param(name, "a whole number from 1")),
            _ => Err(Wrong::param(
                name,
                &format!("a whole number from 1 to {most}"),
            )),
        }
    }
}

/// Role and text of the `at`-th message.
fn read_message(at: usize, message: &Value) -> Result<(String, String), Wrong> {
    let wrong = |member: &str, expected: &str| {
        Err(Wrong::param(&format!("messages[{at}]{member}"), expected))
    };
    if !message.is_object() {
        return wrong("", "an object");
    }
    let role = message["role"].as_str().filter(|role| ROLES.contains(role));
    let Some(role) = role else {
        return wrong(".role", &format!("one of {}", ROLES.join(", ")));
    };
    let text = match &message["content"] {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let texts = parts.iter().map(|part| part["text"].as_str());
            texts
                .collect::<Option<Vec<&str>>>()
                .map(|texts| texts.concat())
        }
        // An assistant that called a tool said nothing.
        Value::Null if role == "assistant" => Some(String::new()),
        _ => None,
    };
    match text {
        Some(text) => Ok((role.to_owned(), text)),
        None => wrong(".content", "a text, or an array of parts with texts"),
    }
}

/// Where each token ends. A token is a word with the spaces before it.
fn ends_of_tokens(text: &str) -> impl Iterator<Item = usize> {
    let mut next = text.chars().skip(1).map(char::is_whitespace);
    text.char_indices().filter_map(move |(at, c)| {
        let ends = next.next().unwrap_or(true);
        (ends && !c.is_whitespace()).then_some(at + c.len_utf8())
    })
}

fn tokens(text: &str) -> usize {
    text.split_whitespace().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Option<&str> = Some("Bearer any");
    const JSON: Option<&str> = Some("application/json");

    fn ask(request: &Value) -> (u16, Value) {
        let answer = answer(KEY, JSON, request.to_string().as_bytes());
        (answer.status, serde_json::from_str(&answer.body).unwrap())
    }

    fn question(text: &str) -> Value {
        json!({"model": "small-1", "messages": [{"role": "user", "content": text}]})
    }

    /// The request with these members besides.
    fn with(members: Value) -> Value {
        let mut request = question("What is a cache?");
        let members = members.as_object().unwrap().clone();
        request.as_object_mut().unwrap().extend(members);
        request
    }

    fn text(answer: &Value) -> &str {
        answer["choices"][0]["message"]["content"].as_str().unwrap()
    }

    #[test]
    fn an_answer_has_the_members_that_clients_read() {
        let (status, answer) = ask(&with(
            json!({"temperature": 0, "max_tokens": 500, "user": "x"}),
        ));
        assert_eq!(status, 200, "{answer}");
        let said = text(&answer).to_owned();
        assert!(said.starts_with("Sandbox answer "), "{said}");
        assert!(said.ends_with("You asked: What is a cache?"), "{said}");
        let completion = said.split(' ').count();
        assert_eq!(
            answer,
            json!({
                "id": answer["id"], "object": "chat.completion", "created": CREATED, "model": "small-1",
                "choices": [{
                    "index": 0,
                    "message": {"role": "assistant", "content": said},
                    "finish_reason": "stop",
                }],
                "usage": {
                    "prompt_tokens": 4, "completion_tokens": completion, "total_tokens": 4 + completion,
                },
            })
        );
        assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl-"));
    }

    #[test]
    fn the_same_question_has_the_same_answer_and_another_has_another() {
        let spelled = [
            r#"{"model":"m","messages":[{"role":"user","content":"a"}]}"#,
            r#"{ "messages": [ {"content": "\u0061", "role": "user"} ], "model": "m" }"#,
            r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a"}]}],"stream":false}"#,
        ];
        let answers = spelled.map(|body| answer(KEY, JSON, body.as_bytes()));
        assert_eq!(answers[0].status, 200);
        assert!(answers.iter().all(|answer| *answer == answers[0]));
        let others = [
            question("a"),
            question("A"),
            question("a "),
            json!({"model": "m", "messages": [{"role": "system", "content": "a"}]}),
            json!({"model": "m", "messages": [{"role": "user", "content": "a"}, {"role": "user", "content": ""}]}),
            json!({"model": "m", "messages": [{"role": "system", "content": "b"}, {"role": "user", "content": "a"}]}),
        ];
        let mut texts: Vec<String> = others
            .iter()
            .map(|one| text(&ask(one).1).to_owned())
            .collect();
        texts.push(text(&serde_json::from_str(&answers[0].body).unwrap()).to_owned());
        texts.sort();
        texts.dedup();
        assert_eq!(texts.len(), 7, "{texts:#?}");
    }

    #[test]
    fn this_answer_never_changes() {
        // Documents show it, and a change of the text would make all of them wrong.
        let (_, answer) = ask(&question("What is a cache?"));
        assert_eq!(
            text(&answer),
            "Sandbox answer a09aaebf: It depends on how often somebody asks. Measure it, and the doubt is \
             gone. You asked: What is a cache?"
        );
    }

    #[test]
    fn a_limit_cuts_the_answer_and_says_so() {
        let (_, whole) = ask(&question("What is a cache?"));
        let words: Vec<&str> = text(&whole).split(' ').collect();
        for name in ["max_tokens", "max_completion_tokens"] {
            for limit in [1, 2, words.len() - 1] {
                let (_, cut) = ask(&with(json!({name: limit})));
                assert_eq!(text(&cut), words[..limit].join(" "));
                assert_eq!(cut["choices"][0]["finish_reason"], "length");
                assert_eq!(cut["usage"]["completion_tokens"], limit);
            }
            for limit in [words.len(), words.len() + 1] {
                assert_eq!(ask(&with(json!({name: limit}))).1, whole);
            }
            assert_eq!(ask(&with(json!({name: null}))).1, whole);
        }
        let both = with(json!({"max_tokens": 5, "max_completion_tokens": 3}));
        assert_eq!(text(&ask(&both).1), words[..3].join(" "));
    }

    #[test]
    fn several_choices_differ() {
        let (_, answer) = ask(&with(json!({"n": 3})));
        let choices = answer["choices"].as_array().unwrap();
        let texts: Vec<&Value> = choices
            .iter()
            .map(|one| &one["message"]["content"])
            .collect();
        assert_eq!(texts.len(), 3);
        assert!(texts[0] != texts[1] && texts[1] != texts[2] && texts[0] != texts[2]);
        assert_eq!(
            choices[0],
            ask(&question("What is a cache?")).1["choices"][0]
        );
        assert_eq!(choices[2]["index"], 2);
    }

    #[test]
    fn any_text_comes_back_as_it_was_asked() {
        for asked in ["\"}] { \\ {{x}}", "a\nb\tc\u{0}\u{1f600}", "", "   "] {
            let (status, answer) = ask(&question(asked));
            assert_eq!(status, 200);
            assert!(text(&answer).ends_with(asked), "{asked:?}: {answer}");
        }
        let (_, answer) = ask(&json!({"model": "m", "messages": [
            {"role": "user", "content": "first"},
            {"role": "assistant", "content": null},
            {"role": "user", "content": [{"type": "text", "text": "la"}, {"type": "text", "text": "st"}]},
            {"role": "tool", "content": "7"},
        ]}));
        assert!(text(&answer).ends_with("You asked: last"), "{answer}");
    }

    #[test]
    fn a_request_that_does_not_fit_is_refused_by_name() {
        let messages = |messages: Value| json!({"model": "m", "messages": messages});
        let of = |message: Value| messages(json!([message]));
        for (request, param) in [
            (
                json!({"messages": [{"role": "user", "content": "a"}]}),
                "model",
            ),
            (with(json!({"model": ""})), "model"),
            (with(json!({"model": 7})), "model"),
            (json!({"model": "m"}), "messages"),
            (messages(json!([])), "messages"),
            (messages(json!("a")), "messages"),
            (of(json!("a")), "messages[0]"),
            (of(json!({"content": "a"})), "messages[0].role"),
            (
                of(json!({"role": "robot", "content": "a"})),
                "messages[0].role",
            ),
            (of(json!({"role": "user"})), "messages[0].content"),
            (
                of(json!({"role": "user", "content": null})),
                "messages[0].content",
            ),
            (
                of(json!({"role": "user", "content": 7})),
                "messages[0].content",
            ),
            (
                of(json!({"role": "user", "content": [{"type": "image_url"}]})),
                "messages[0].content",
            ),
            (with(json!({"temperature": 2.1})), "temperature"),
            (with(json!({"temperature": "0"})), "temperature"),
            (with(json!({"top_p": -1})), "top_p"),
            (with(json!({"max_tokens": 0})), "max_tokens"),
            (with(json!({"max_tokens": 1.5})), "max_tokens"),
            (
                with(json!({"max_completion_tokens": "1"})),
                "max_completion_tokens",
            ),
            (with(json!({"n": 129})), "n"),
            (with(json!({"stream": true})), "stream"),
            (with(json!({"stream": "no"})), "stream"),
        ] {
            let (status, body) = ask(&request);
            let error = &body["error"];
            assert_eq!((status, &error["param"]), (400, &json!(param)), "{body}");
            assert_eq!(
                (&error["type"], &error["code"]),
                (&json!(INVALID), &Value::Null)
            );
            assert!(error["message"].as_str().unwrap().contains(param), "{body}");
        }
        for body in [&b""[..], b"{", b"[]", b"\"a\"", b"{\"model\":\"\xff\"}"] {
            let answer = answer(KEY, JSON, body);
            let error: Value = serde_json::from_str(&answer.body).unwrap();
            assert_eq!(
                (answer.status, &error["error"]["param"]),
                (400, &Value::Null)
            );
        }
    }

    #[test]
    fn the_key_comes_first_and_then_the_type() {
        for authorization in [
            None,
            Some(""),
            Some("Bearer"),
            Some("Bearer  "),
            Some("Basic eDp5"),
        ] {
            let answer = answer(authorization, None, b"");
            assert_eq!(answer.status, 401, "{authorization:?}");
            assert!(answer.body.contains("\"code\":\"invalid_api_key\""));
        }
        let valid = question("a").to_string();
        for kind in [
            None,
            Some("text/plain"),
            Some("application/x-www-form-urlencoded"),
        ] {
            assert_eq!(answer(KEY, kind, valid.as_bytes()).status, 415, "{kind:?}");
        }
        for kind in ["application/json", "Application/JSON; charset=utf-8"] {
            assert_eq!(
                answer(Some("bearer x"), Some(kind), valid.as_bytes()).status,
                200
            );
        }
    }

    #[test]
    fn failures_take_turns() {
        let failures = [0, 1, 2].map(failure);
        let heads = failures.map(|answer| (answer.status, answer.retry_after));
        assert_eq!(heads, [(500, None), (429, Some(1)), (500, None)]);
    }
}
