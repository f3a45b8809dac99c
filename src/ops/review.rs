//! The review page: a few files inside the program, which ask nothing of anybody but this server's own API.
//!
//! The texts that it shows come from strangers, some of them attackers. The page puts them into text nodes only, and the
//! policy below keeps whatever slips through from running, loading or sending anything.

/// For all of them: no inline script or style, no other origin, no frame around it.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

/// One file of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asset {
    /// Where it is served.
    pub path: &'static str,
    pub content_type: &'static str,
    pub body: &'static str,
}

/// The whole page.
pub const ASSETS: [Asset; 5] = [
    Asset { path: "/review", content_type: "text/html; charset=utf-8", body: include_str!("review/page.html") },
    Asset { path: "/review/page.css", content_type: "text/css; charset=utf-8", body: include_str!("review/page.css") },
    Asset { path: "/review/page.js", content_type: JAVASCRIPT, body: include_str!("review/page.js") },
    Asset { path: "/review/charts.js", content_type: JAVASCRIPT, body: include_str!("review/charts.js") },
    Asset { path: "/review/text.js", content_type: JAVASCRIPT, body: include_str!("review/text.js") },
];

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_obeys_its_own_policy() {
        let [html, ..] = ASSETS.map(|asset| asset.body);
        let whole: String = ASSETS.iter().map(|asset| asset.body).collect();
        for asset in &ASSETS[1..] {
            let (path, name) = (asset.path, asset.path.trim_start_matches("/review/"));
            let named = whole.contains(&format!("\"{path}\"")) || whole.contains(&format!("\"./{name}\""));
            assert!(named, "{path} is not in the page");
        }
        assert!(!html.contains(" style=") && !html.contains(" onclick=") && !html.contains("<style"), "inline");
        for Asset { path, body, .. } in ASSETS {
            for foreign in ["http:", "https:", "//cdn", "@import", "url("] {
                let allowed = body.replace("http://www.w3.org/2000/svg", "");
                assert!(!allowed.contains(foreign), "{foreign} in {path}");
            }
        }
    }

    #[test]
    fn ticket_text_never_becomes_markup() {
        for Asset { path, body, .. } in ASSETS {
            for sink in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "srcdoc"]
            {
                assert!(!body.contains(sink), "{sink} in {path}");
            }
        }
    }
}
