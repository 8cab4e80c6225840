from oesvc.dns.cache import ExpiringCache


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_what_has_expired_is_forgotten():
    clock = Clock()
    cache = ExpiringCache(3, clock)
    cache.put("a", 1, 110)
    cache.put("b", 2, 100)
    assert cache.get("a") == 1 and cache.get("b") is None and len(cache) == 1
    clock.now = 110
    assert cache.get("a") is None and len(cache) == 0


def test_a_full_cache_forgets_what_was_not_used_for_longest():
    cache = ExpiringCache(2, Clock())
    cache.put("a", 1, 200)
    cache.put("b", 2, 200)
    cache.get("a")
    cache.put("c", 3, 200)
    assert (cache.get("a"), cache.get("b"), cache.get("c"), len(cache)) == (1, None, 3, 2)


def test_what_came_before_the_clock_was_set_back_is_forgotten():
    clock = Clock()
    cache = ExpiringCache(2, clock)
    cache.put("a", 1, 200)
    clock.now = 99
    assert cache.get("a") is None and len(cache) == 0
