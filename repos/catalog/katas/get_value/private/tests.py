def test_1(f):
    assert f({'a': 1}, 'a') == 1


def test_2(f):
    assert f({'a': 1}, 'b') is None


def test_3(f):
    assert f({}, 'a') is None


def test_4(f):
    assert f({5: 6}, 5) == 6
