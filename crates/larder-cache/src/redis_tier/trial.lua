-- Does what a fill does, on a key that nobody reads. It is gone when this ends. KEYS[1] that key.
call('SET', KEYS[1], '', 'PX', 1000)
call('DEL', KEYS[1])
