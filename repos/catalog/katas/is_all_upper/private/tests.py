def test_1(f):
    assert f('ABC') is True


def test_2(f):
    assert f('AbC') is False


def test_3(f):
    assert f('abc') is False


def test_4(f):
    assert f('Z') is True


def test_5(f):
    assert f('HELLo') is False
