def test_1(f):
    assert f('a') is True


def test_2(f):
    assert f('b') is False


def test_3(f):
    assert f('u') is True


def test_4(f):
    assert f('z') is False


def test_5(f):
    assert f('e') is True
