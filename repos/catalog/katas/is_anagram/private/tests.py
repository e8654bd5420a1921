def test_1(f):
    assert f('listen', 'silent') is True


def test_2(f):
    assert f('abc', 'abd') is False


def test_3(f):
    assert f('aab', 'abb') is False


def test_4(f):
    assert f('ab', 'ba') is True


def test_5(f):
    assert f('a', 'aa') is False
