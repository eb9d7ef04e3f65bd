//! Reads markdown: fenced blocks, inline code, headings, links, tables, and the commands in them.
//!
//! Pure. Enough for the documents of this repository, which are plain. Not here: what must hold for what is read (`documents.rs`,
//! `commands.rs`).

/// A fenced block.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// The word behind the opening fence.
    pub(crate) language: String,
    /// What is between the fences, with its last line end.
    pub(crate) body: String,
    /// The line of the opening fence, from 1.
    pub(crate) line: usize,
}

/// One command of a pipeline.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Command {
    /// The words, without quotes.
    pub(crate) words: Vec<String>,
    /// Where it stands, from 1.
    pub(crate) line: usize,
}

/// All fenced blocks.
pub(crate) fn blocks(markdown: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (index, line) in markdown.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(language)) => {
                open = Some(Block {
                    language: language.trim().to_owned(),
                    body: String::new(),
                    line: index + 1,
                });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => {
                block.body += line;
                block.body.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

/// The lines outside of fenced blocks, with their numbers from 1.
pub(crate) fn prose(markdown: &str) -> Vec<(usize, &str)> {
    let mut fenced = false;
    let mut lines = Vec::new();
    for (index, line) in markdown.lines().enumerate() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            lines.push((index + 1, line));
        }
    }
    lines
}

/// Inline code outside of fenced blocks.
pub(crate) fn inline_code(markdown: &str) -> Vec<(usize, &str)> {
    prose(markdown)
        .into_iter()
        .flat_map(|(number, line)| line.split('`').skip(1).step_by(2).map(move |code| (number, code)))
        .collect()
}

/// Where links outside of fenced blocks and inline code point to.
pub(crate) fn links(markdown: &str) -> Vec<(usize, &str)> {
    let mut links = Vec::new();
    for (number, line) in prose(markdown) {
        for part in line.split('`').step_by(2) {
            for rest in part.split("](").skip(1) {
                links.extend(rest.split_once(')').map(|(target, _)| (number, target)));
            }
        }
    }
    links
}

/// What `#anchor` links can name: the headings, as forges turn them into anchors.
pub(crate) fn anchors(markdown: &str) -> Vec<String> {
    prose(markdown)
        .into_iter()
        .filter(|(_, line)| line.starts_with('#'))
        .map(|(_, line)| {
            let heading = line.trim_start_matches('#').trim().to_lowercase();
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// The rows of the first table whose head begins with `first`, cell by cell, without the head. `None`: there is no such table.
pub(crate) fn table(markdown: &str, first: &str) -> Option<Vec<Vec<String>>> {
    let cells = |line: &str| -> Vec<String> {
        line.trim().trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let lines: Vec<&str> = prose(markdown).into_iter().map(|(_, line)| line.trim()).collect();
    let head = lines.iter().position(|line| line.starts_with('|') && cells(line)[0] == first)?;
    let rows = lines[head + 1..].iter().take_while(|line| line.starts_with('|')).skip(1);
    Some(rows.map(|row| cells(row)).collect())
}

/// Every command of the `sh` blocks.
pub(crate) fn shell_commands(markdown: &str) -> Vec<Command> {
    let mut commands = Vec::new();
    for block in blocks(markdown).iter().filter(|block| block.language == "sh") {
        let mut pending = String::new();
        for (line, text) in (block.line + 1..).zip(block.body.lines()) {
            if let Some(text) = text.strip_suffix('\\') {
                pending += text;
            } else {
                pending += text;
                commands.extend(pipeline(&pending).into_iter().map(|words| Command { words, line }));
                pending.clear();
            }
        }
    }
    commands
}

/// Splits a line of shell at `|`, `&&`, `;` and `&`, and each command into words, without redirections. What follows ` #` is a comment.
pub(crate) fn pipeline(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut redirected = false;
    for c in line.chars().chain(['\n']) {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, ' ' | '\t' | '\n' | '|' | '&' | ';' | '<' | '>') => {
                if let Some(word) = word.take().filter(|_| !std::mem::take(&mut redirected)) {
                    commands.last_mut().unwrap().push(word);
                }
                match c {
                    '<' | '>' => redirected = true,
                    '|' | '&' | ';' => commands.push(Vec::new()),
                    _ => {}
                }
            }
            _ => word.get_or_insert_default().push(c),
        }
    }
    commands.retain(|words: &Vec<String>| !words.is_empty());
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# The page: `x`\n\nSee [it](a/b.md#c-d), not `[this](one)`.\n\n```sh\n# a comment\n\
                        echo 'a | b' | ropeway pub orders \\\n  --key k   # why\n```\n\n\
                        | Feature | Default |\n|---|---|\n| `one` | yes |\n| `two` | no |\n\n## Next\n";

    #[test]
    fn blocks_links_anchors_and_tables_are_found() {
        assert_eq!(blocks(PAGE).len(), 1);
        assert_eq!(blocks(PAGE)[0].line, 5);
        assert_eq!(links(PAGE), [(3, "a/b.md#c-d")]);
        assert_eq!(anchors(PAGE), ["the-page-x", "next"]);
        assert_eq!(inline_code(PAGE)[0], (1, "x"));
        assert_eq!(table(PAGE, "Feature").unwrap(), [["`one`", "yes"], ["`two`", "no"]]);
        assert_eq!(table(PAGE, "Backend"), None);
    }

    #[test]
    fn commands_are_split_as_a_shell_would() {
        let commands = shell_commands(PAGE);
        let words: Vec<_> = commands.iter().map(|command| command.words.join(" ")).collect();
        assert_eq!(words, ["echo a | b", "ropeway pub orders --key k"]);
        assert_eq!(commands[1].line, 8);
        assert_eq!(pipeline("a '' \"b c\" && d"), [vec!["a", "", "b c"], vec!["d"]]);
        assert_eq!(pipeline("a < in.txt b > out.txt | c >>log"), [vec!["a", "b"], vec!["c"]]);
    }
}
