//! Token counts for providers that never said, and for local sentences.
//!
//! Invariant: an estimate is always marked as one (`Usage.estimated`), and more
//! text never counts less. It is a rule of thumb of today's vocabularies: four
//! bytes of Latin text a token, one and a half characters of Chinese.

use skein_proto::model::v1::{GenerateRequest, Message, content_part::Part};

/// Tokens that the format spends on each message.
const PER_MESSAGE: i64 = 4;

pub fn text(text: &str) -> i64 {
    let (mut ascii, mut wide) = (0_i64, 0_i64);
    for character in text.chars() {
        if (character as u32) < 0x2E80 { ascii += 1 } else { wide += 1 }
    }
    (ascii + 3) / 4 + (wide * 2 + 2) / 3
}

pub fn request(request: &GenerateRequest) -> i64 {
    let messages: i64 = request.messages.iter().map(message).sum();
    let passages: i64 = request.passages.iter().map(|p| text(&p.text) + PER_MESSAGE).sum();
    let tools: i64 =
        request.tools.iter().map(|t| text(&t.description) + text(&t.parameters_json)).sum();
    messages + passages + tools
}

fn message(message: &Message) -> i64 {
    let parts: i64 = message
        .content
        .iter()
        .map(|part| match &part.part {
            Some(Part::Text(words)) => text(words),
            // A picture at low detail.
            Some(Part::Image(_) | Part::Audio(_)) => 85,
            None => 0,
        })
        .sum();
    let calls: i64 = message.tool_calls.iter().map(|call| text(&call.arguments_json)).sum();
    PER_MESSAGE + parts + calls
}

#[cfg(test)]
mod tests {
    #[test]
    fn more_text_never_counts_less() {
        let sample = "The gateway listens on port 8080. 网关监听 8080 端口。";
        let mut last = 0;
        for (end, _) in sample.char_indices() {
            let count = super::text(&sample[..end]);
            assert!(count >= last);
            last = count;
        }
        assert!((8..40).contains(&last), "{last}");
    }
}
