//! The bill of materials: CycloneDX 1.5 in JSON (<https://cyclonedx.org/docs/1.5/json/>). Without a time and a serial number,
//! which it need not have, and which would differ from build to build.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::packages::Package;

pub(super) fn of(version: &str, packages: &[Package]) -> Result<String> {
    let components: Vec<_> = packages.iter().map(component).collect();
    let bom = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": "loader",
                "name": "loader",
                "version": version,
                "licenses": [{ "expression": "MIT OR Apache-2.0" }],
            },
        },
        "components": components,
    });
    let text = serde_json::to_string_pretty(&bom).context("the bill cannot be written")?;
    Ok(text + "\n")
}

fn component(package: &Package) -> Value {
    let Package { name, version, licence, checksum, .. } = package;
    let url = format!("pkg:cargo/{name}@{version}");
    // Some packages write the operator of before SPDX had one.
    let licence = licence.replace('/', " OR ");
    let mut component = json!({
        "type": "library",
        "bom-ref": url,
        "name": name,
        "version": version,
        "licenses": [{ "expression": licence }],
    });
    // Our own are in no registry.
    if let Some(checksum) = checksum {
        component["purl"] = url.into();
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    component
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_of_a_registry_is_named_with_its_checksum() {
        let package = |checksum: Option<&str>| Package {
            name: "a".to_owned(),
            version: "1.0.0".to_owned(),
            licence: "MIT/Apache-2.0".to_owned(),
            dir: "/nowhere".into(),
            checksum: checksum.map(str::to_owned),
        };
        let bom: Value =
            serde_json::from_str(&of("0.1.0", &[package(Some("00")), package(None)]).unwrap()).unwrap();
        let [theirs, ours] = [0, 1].map(|at| bom["components"][at].clone());
        assert_eq!(theirs["purl"], "pkg:cargo/a@1.0.0");
        assert_eq!(theirs["hashes"][0]["content"], "00");
        assert_eq!(theirs["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!((&ours["purl"], &ours["hashes"]), (&Value::Null, &Value::Null));
    }
}
