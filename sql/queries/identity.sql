SELECT id FROM larder_identity
