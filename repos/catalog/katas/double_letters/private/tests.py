def test_1(f):
    assert f('abc') == 'aabbcc'


def test_2(f):
    assert f('') == ''


def test_3(f):
    assert f('x') == 'xx'


def test_4(f):
    assert f('hi!') == 'hhii!!'
