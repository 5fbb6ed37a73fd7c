DELETE FROM larder_outbox WHERE id = :id
