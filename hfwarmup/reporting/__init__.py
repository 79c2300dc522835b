"""What a run did, drawn from its folder: pictures, the report, the model card. Needs no torch."""
