//! Who joins, with which address and which keys.

use crate::Config;
use mesh::config::Sources;

fn read(variables: &[(&str, &str)]) -> Result<Vec<(String, String, usize)>, String> {
    let mut all = vec![("SKEIN_MESH_KEY", "unused"), ("SKEIN_MESH_PEERS", "unused")];
    all.extend_from_slice(variables);
    let (config, _) = Config::read(&Sources::of(&all)).map_err(|error| error.to_string())?;
    let shown = config.providers.into_iter();
    Ok(shown.map(|one| (one.name.to_string(), one.base_url, one.keys.len())).collect())
}

#[test]
fn a_provider_joins_by_its_own_variables() {
    for (variables, name, address, keys) in [
        (&[("OPENAI_API_KEY", "a, b,")][..], "openai", "https://api.openai.com/v1", 2),
        (&[("OPENAI_BASE_URL", "http://127.0.0.1:1/")], "openai", "http://127.0.0.1:1", 0),
        (&[("GROQ_API_KEY", "a")], "groq", "https://api.groq.com/openai/v1", 1),
        (
            &[("GROQ_API_KEY", "a"), ("GROQ_BASE_URL", "https://groq.lan")],
            "groq",
            "https://groq.lan/openai/v1",
            1,
        ),
        (&[("ZAI_API_KEY", "a")], "zai", "https://api.z.ai/api/paas/v4", 1),
        (&[("OLLAMA_HOST", "box")], "ollama", "http://box:11434/v1", 0),
        (&[("OLLAMA_HOST", "box:80")], "ollama", "http://box:80/v1", 0),
        (&[("OLLAMA_HOST", "https://box/api/v1/")], "ollama", "https://box/api/v1", 0),
        (&[("VLLM_BASE_URL", "http://gpu:8000")], "vllm", "http://gpu:8000/v1", 0),
        (
            &[
                ("AZURE_OPENAI_ENDPOINT", "https://x.openai.azure.com/"),
                ("AZURE_OPENAI_API_KEY", "a"),
            ],
            "azure",
            "https://x.openai.azure.com",
            1,
        ),
    ] {
        assert_eq!(read(variables), Ok(vec![(name.into(), address.into(), keys)]));
    }
    assert_eq!(read(&[]), Ok(vec![]));
}

#[test]
fn a_server_of_ones_own_joins_by_a_name_of_ones_own() {
    let found = read(&[
        ("SKEIN_PROVIDER__COMPATIBLE", "lab, other,lab"),
        ("SKEIN_LAB__BASE_URL", "http://lab/v1"),
        ("SKEIN_LAB__API_KEY", "a,b"),
        ("SKEIN_LAB__IDLE_TIMEOUT", "5m"),
        ("SKEIN_OTHER__BASE_URL", "http://other"),
    ]);
    let expected =
        vec![("lab".into(), "http://lab/v1".into(), 2), ("other".into(), "http://other".into(), 0)];
    assert_eq!(found, Ok(expected));
}

#[test]
fn what_cannot_be_right_is_named() {
    for (variables, complaint) in [
        (&[("SKEIN_PROVIDER__COMPATIBLE", "openai")][..], "SKEIN_PROVIDER__COMPATIBLE: \"openai\""),
        (&[("SKEIN_PROVIDER__COMPATIBLE", "My-Lab")], "SKEIN_PROVIDER__COMPATIBLE: \"My-Lab\""),
        (&[("SKEIN_PROVIDER__COMPATIBLE", "lab")], "SKEIN_LAB__BASE_URL: lab needs an address"),
        (&[("SKEIN_LAB__BASE_URL", "http://lab")], "SKEIN_LAB__BASE_URL: unknown setting"),
        (&[("AZURE_OPENAI_API_KEY", "a")], "AZURE_OPENAI_ENDPOINT: azure needs an address"),
        (&[("GROQ_BASE_URL", "groq")], "GROQ_BASE_URL: must be a URL"),
    ] {
        let error = read(variables).unwrap_err();
        assert!(error.contains(complaint), "{error}");
    }
}
