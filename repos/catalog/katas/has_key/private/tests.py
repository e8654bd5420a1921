def test_1(f):
    assert f({'a': 1}, 'a') is True


def test_2(f):
    assert f({'a': 1}, 'b') is False


def test_3(f):
    assert f({}, 'a') is False


def test_4(f):
    assert f({5: 6}, 6) is False


def test_5(f):
    assert f({5: 6}, 5) is True
