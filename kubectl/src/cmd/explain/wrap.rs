//! Documentation in lines of bounded width.

/// Width of a line without its indentation.
const WIDTH: usize = 76;

/// A text in lines. Empty lines, code and lists keep their beginnings; everything else runs on.
pub(super) fn paragraph(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut current = String::new();
    for source in text.split('\n') {
        if source.starts_with("    ") {
            flush(&mut current, &mut lines);
            lines.push(source.to_owned());
            continue;
        }
        if source.trim().is_empty() {
            flush(&mut current, &mut lines);
            if !lines.is_empty() {
                lines.push(String::new());
            }
            continue;
        }
        if current.ends_with(':') || is_item(source.trim_start()) {
            flush(&mut current, &mut lines);
        }
        for word in source.split_whitespace() {
            if !current.is_empty() && current.chars().count() + 1 + word.chars().count() > WIDTH {
                flush(&mut current, &mut lines);
            }
            if !current.is_empty() {
                current.push(' ');
            }
            current.push_str(word);
        }
    }
    flush(&mut current, &mut lines);
    lines
}

fn flush(current: &mut String, lines: &mut Vec<String>) {
    if !current.is_empty() {
        lines.push(std::mem::take(current));
    }
}

/// `- x`, `* x`, `1. x`.
fn is_item(line: &str) -> bool {
    let Some((mark, _)) = line.split_once(char::is_whitespace) else { return false };
    let number = mark.strip_suffix('.').unwrap_or(mark);
    matches!(mark, "-" | "*") || (!number.is_empty() && number.chars().all(|c| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_empty_lines_stay() {
        let text = "One two\nthree:\n- a\n- b\n\nend";
        assert_eq!(paragraph(text), ["One two three:", "- a", "- b", "", "end"]);
        let long = "word ".repeat(20);
        let lines = paragraph(&long);
        assert_eq!((lines.len(), lines[0].len()), (2, 74));
    }
}
