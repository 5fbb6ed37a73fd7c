INSERT INTO larder_identity (one, id) VALUES (1, :id) ON CONFLICT (one) DO NOTHING
