"""What tests are built from: small models, references in float64, scripts."""
