use proptest::prelude::*;

use super::*;

#[track_caller]
fn check(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        assert_eq!(mask(text).text, *expected, "{text}");
    }
}

#[test]
fn emails() {
    check(&[
        ("write to Jane.Doe+it@mail.example.co.uk.", "write to <email_1>."),
        ("a@x.org, b@x.org; A@X.ORG", "<email_1>, <email_2>; <email_1>"),
        ("<mailto:j@x.org?subject=y>", "<mailto:<email_1>?subject=y>"),
        ("jane[at]example[.]org and jane (at) example (dot) org", "<email_1> and <email_2> (dot) org"),
        ("?to=jane%40x.org&b=1", "?to=<email_1>&b=1"),
        ("jörg@müller.de 用户@例子.广告", "<email_1> <email_2>"),
        ("请联系jane@x.com。谢谢", "请联系<email_1>。谢谢"),
        ("\"jane doe\"@x.org", "<email_1>"),
        ("root@server01 user@[10.0.0.1]", "<email_1> <email_2>"),
        ("a@b@c.org", "<email_1>"),
        ("meet @ 5, @Override, x@", "meet @ 5, @Override, x@"),
    ]);
}

#[test]
fn network_addresses() {
    check(&[
        ("from 10.251.39.209:50010 to /10.0.0.1, 10.0.0.1/24", "from <ip_1>:50010 to /<ip_2>, <ip_2>/24"),
        ("145.239.112[.]83 and 1(.)2(.)3(.)4", "<ip_1> and <ip_2>"),
        ("300.1.1.1 v1.2.3.4 1.2.3", "300.1.1.1 v<ip_1> 1.2.3"),
        ("fe80::1%eth0 [2001:db8::7]:443 ::1", "<ip_1>%eth0 [<ip_2>]:443 <ip_3>"),
        ("::ffff:192.0.2.1: refused, 2001:DB8:0:1:2:3:4:5", "<ip_1>: refused, <ip_2>"),
        ("at 12:34:56 std::fmt Foo::bar a:b", "at 12:34:56 std::fmt Foo::bar a:b"),
        ("00:1a:2b:3c:4d:5e 00-1A-2B-3C-4D-5E", "<mac_1> <mac_2>"),
        ("ip-10-0-0-7.ec2.internal", "<ip_1>.ec2.internal"),
    ]);
}

#[test]
fn cards_accounts_and_telephones() {
    check(&[
        ("card 4111 1111 1111 1111 exp 12/25", "card <card_1> exp 12/25"),
        ("4111-1111-1111-1111 4111111111111111 4111111111111112", "<card_1> <card_1> 4111111111111112"),
        ("3782 822463 10005", "<card_1>"),
        ("IBAN DE89 3704 0044 0532 0130 00 BIC COBADEFF", "IBAN <iban_1> BIC COBADEFF"),
        ("GB82WEST12345698765432 GB82WEST12345698765433", "<iban_1> GB82WEST12345698765433"),
        ("call +49 (30) 123-4567 or 0171 2345678", "call <phone_1> or <phone_2>"),
        ("Tel.: 030/1234567, (555) 123-4567, 1-800-555-0199", "Tel.: <phone_1>, <phone_2>, <phone_3>"),
        ("ext 123456, next 123456", "ext <phone_1>, next 123456"),
        ("1 22 333 0171 2345678; 5, 4111 1111 1111 1111; 7 8 10.0.0.1", "1 22 333 <phone_1>; 5, <card_1>; 7 8 <ip_1>"),
        ("SSN 078-05-1120", "SSN <id_1>"),
        ("2024-01-24 09:07:54 ticket 1234567 took 1,204.5 ms", "2024-01-24 09:07:54 ticket 1234567 took 1,204.5 ms"),
        ("on 01.02.2024 10:11 build 20240102.3", "on 01.02.2024 10:11 build 20240102.3"),
    ]);
}

#[test]
fn tokens_and_keys() {
    let jwt = format!("eyJ{}.eyJ{}.{}", "a1B2".repeat(5), "c3D4".repeat(9), "e5F6".repeat(5));
    let pem = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc=\n-----END RSA PRIVATE KEY-----";
    for (secret, mask_of) in [
        ("AKIAIOSFODNN7EXAMPLE", "<secret_1>"),
        ("ghp_abcdefghijklmnopqrstuvwxyz0123456789", "<secret_1>"),
        ("sk-proj-abcdefghijklmnop1234", "<secret_1>"),
        ("xoxb-123456789012-abcdefghij", "<secret_1>"),
        ("glpat-abcdefghij1234567890", "<secret_1>"),
        (jwt.as_str(), "<secret_1>"),
        (pem, "<secret_1>"),
        ("https://hooks.slack.com/services/T000/B000/abcdef", "https://<secret_1>"),
        ("Authorization: Bearer abcDEF123456", "Authorization: Bearer <secret_1>"),
        ("Authorization: Basic amFuZTpodW50ZXIy", "Authorization: Basic <secret_1>"),
        ("postgres://app:hunter2@db:5432/x", "postgres://<secret_1>:5432/x"),
        ("d41d8cd98f00b204e9800998ecf8427e", "<hash_1>"),
    ] {
        assert_eq!(mask(&format!("see {secret}, please")).text, format!("see {mask_of}, please"));
    }
    check(&[
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blbn", "<secret_1>"),
        ("a basic understanding of bearer authentication", "a basic understanding of bearer authentication"),
        ("desk-1234567890123456 task-force", "desk-1234567890123456 task-force"),
    ]);
}

#[test]
fn values_of_secret_keys() {
    check(&[
        ("password=hunter2 user", "password=<secret_1> user"),
        ("DB_PASSWORD: 'correct horse'", "DB_PASSWORD: '<secret_1>'"),
        (r#"{"api_key":"abc","x":1}"#, r#"{"api_key":"<secret_1>","x":1}"#),
        (r#"{\"token\":\"abcd\"}"#, r#"{\"token\":\"<secret_1>\"}"#),
        ("<password>hunter2</password>", "<password><secret_1></password>"),
        ("?token=abc123&x=1", "?token=<secret_1>&x=1"),
        ("my password is sunshine, help", "my password is <secret_1>, help"),
        ("Mein Passwort lautet Sommer2024!", "Mein Passwort lautet <secret_1>!"),
        ("login with password Summer2024 fails", "login with password <secret_1> fails"),
        ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCY", "aws_secret_access_key = <secret_1>"),
        ("Cookie: sid=1; user=jane\nHost: x", "Cookie: <secret_1>\nHost: x"),
        ("mysql -u root -pS3cret! -h db", "mysql -u root -p<secret_1>! -h db"),
        ("my password is expired", "my password is expired"),
        ("Error: password: incorrect", "Error: password: incorrect"),
        ("please reset the password for the portal", "please reset the password for the portal"),
        ("password=**** token: null", "password=**** token: null"),
        ("secretary tokens password", "secretary tokens password"),
    ]);
}

#[test]
fn users_and_their_folders() {
    check(&[
        ("/home/jane/x and /Users/jane, /home/root/", "/home/<user_1>/x and /Users/<user_1>, /home/root/"),
        (r"C:\Users\Jane Doe\Desktop C:\Users\Public\x", r"C:\Users\<user_1>\Desktop C:\Users\Public\x"),
        (r"CORP\jdoe on C:\WINDOWS\system32 HKLM\software", r"CORP\<user_1> on C:\WINDOWS\system32 HKLM\software"),
        ("user=jdoe failed, jdoe is locked", "user=<user_1> failed, <user_1> is locked"),
        ("Failed password for invalid user admin from 1.2.3.4", "Failed password for invalid user admin from <ip_1>"),
        (
            "Failed password for invalid user jsmith from 1.2.3.4",
            "Failed password for invalid user <user_1> from <ip_1>",
        ),
        ("Username: Jane Doe", "Username: <user_1>"),
    ]);
}

#[test]
fn names_in_greetings_and_signatures() {
    check(&[
        ("Dear Mr. Smith,\nVPN is down", "Dear Mr. <name_1>,\nVPN is down"),
        ("Hi Jane, the printer", "Hi <name_1>, the printer"),
        ("Hi all, hello team, Hello World, Dear Support Team", "Hi all, hello team, Hello World, Dear Support Team"),
        ("Sehr geehrte Frau Dr. Müller,", "Sehr geehrte Frau Dr. <name_1>,"),
        ("It fails.\n\nBest regards,\nJane Doe\nACME", "It fails.\n\nBest regards,\n<name_1>\nACME"),
        ("Mit freundlichen Grüßen\n\nJörg von der Höhe", "Mit freundlichen Grüßen\n\n<name_1>"),
        ("fails. Regards, John Smith", "fails. Regards, <name_1>"),
        ("thanks\njane", "thanks\n<name_1>"),
        ("Thanks, John", "Thanks, <name_1>"),
        ("Thanks, Outlook is broken again", "Thanks, Outlook is broken again"),
        ("Thanks\nThe printer is on fire", "Thanks\nThe printer is on fire"),
        ("-- \nJane Doe", "-- \n<name_1>"),
        ("My name is Jane Doe. Jane cannot log in", "My name is <name_1>. <name_2> cannot log in"),
        (
            "From: Jane Doe <j@x.org>\nTo: Doe, John; it@x.org",
            "From: <name_1> <<email_1>>\nTo: <name_2>, <name_3>; <email_2>",
        ),
        ("сломалось. С уважением,\nИван Петров", "сломалось. С уважением,\n<name_1>"),
        ("highway best-effort dearly", "highway best-effort dearly"),
    ]);
}

#[test]
fn the_same_value_has_the_same_number() {
    check(&[("a@x.org 1.1.1.1 b@x.org a@x.org 2.2.2.2 1.1.1.1", "<email_1> <ip_1> <email_2> <email_1> <ip_2> <ip_1>")]);
}

#[test]
fn debug_shows_no_text() {
    assert_eq!(format!("{:?}", mask("secret plan of a@x.org")), "Masked { bytes: 24, replaced: 1 }");
}

#[test]
fn hostile_texts_take_linear_time() {
    for piece in [
        "1",
        "1 ",
        "a@",
        "@",
        "eyJ",
        "password=",
        "password ",
        "::",
        "0:",
        "-----BEGIN PRIVATE KEY",
        "Dear A",
        "a",
        "A1",
        "Hi ",
    ] {
        let text = piece.repeat(24_000 / piece.len());
        let started = std::time::Instant::now();
        mask(&text);
        // Quadratic time would be minutes; a build without optimisation is slow enough as it is.
        assert!(started.elapsed() < std::time::Duration::from_secs(20), "{piece:?}: {:?}", started.elapsed());
    }
}

/// What may stand right before or behind an address in real texts.
const AROUND: [&str; 14] = ["", " ", "\n", "<", "(", "=", ":", "\"", "'", ",", ";", "[", "|", "\t"];

fn around() -> impl Strategy<Value = &'static str> {
    prop::sample::select(AROUND[1..].to_vec())
}

proptest! {
    #[test]
    fn no_email_that_went_in_comes_out(
        before in ".{0,40}",
        left in around(),
        local in "[a-z0-9][a-z0-9._%+-]{0,20}[a-z0-9]",
        host in "[a-z0-9]{1,10}(-[a-z0-9]{1,5})?\\.(com|org|co\\.uk|info)",
        right in around(),
        after in ".{0,40}",
    ) {
        let email = format!("{local}@{host}");
        let masked = mask(&format!("{before}{left}{email}{right}{after}")).text;
        prop_assert!(!masked.contains(&email), "{masked}");
        prop_assert!(!masked.contains(&format!("@{host}")), "{masked}");
    }

    #[test]
    fn no_address_that_went_in_comes_out(
        before in ".{0,40}",
        left in around(),
        v4 in any::<[u8; 4]>(),
        v6 in any::<[u16; 8]>(),
        zeros in 0usize..8,
        right in around(),
        after in ".{0,40}",
    ) {
        let v4 = std::net::Ipv4Addr::from(v4).to_string();
        let mut groups = v6;
        groups[8 - zeros..].fill(0);
        groups.rotate_left(zeros / 2);
        let v6 = std::net::Ipv6Addr::from(groups).to_string();
        // A dot or a figure beside it would make it another address.
        let masked = mask(&format!("{before}{left}{v4}{right}{after}")).text;
        prop_assert!(!masked.contains(&v4), "{v4}: {masked}");
        prop_assume!(v6 != "::");
        let masked = mask(&format!("{before} {v6} {after}")).text;
        prop_assert!(!masked.contains(&v6), "{v6}: {masked}");
    }

    #[test]
    fn any_text_is_masked_without_panic(text in "\\PC{0,200}", more in ".{0,100}") {
        let masked = mask(&format!("{text}{more}"));
        prop_assert!(masked.text.len() <= (text.len() + more.len()) * 12 + 16);
    }

    #[test]
    fn pieces_of_what_is_masked_do_no_harm(pieces in prop::collection::vec(
        prop::sample::select(vec![
            "Dear ", "Jane ", "Doe", "\n", "Regards,", "password", "=", ":", " is ", "\"", "'", "\\", "@", "x.org", "10.0.0.",
            "1", "::", "fe80", "+49", " ", "4111", "é", "\u{20ac}", "<", ">", "eyJhbGciOi", "Bearer ", "user=", "/home/",
            "C:\\Users\\", "From: ", ";", "-----BEGIN PRIVATE KEY-----", "-----END ", "CORP\\", "\u{4e2d}", "%40", "(at)", "J.",
        ]), 0..30,
    )) {
        mask(&pieces.concat());
    }
}
