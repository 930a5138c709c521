"""The fleet as Ansible inventory."""

from saveos.maintenance.inventory import tag_unsafe


def test_templates_are_tagged_wherever_they_hide():
    tagged = tag_unsafe({"a": ["{{ x }}", {"b": "{% raw %}"}], "c": "plain", "d": 5})
    assert tagged == {
        "a": [{"__ansible_unsafe": "{{ x }}"}, {"b": {"__ansible_unsafe": "{% raw %}"}}],
        "c": "plain",
        "d": 5,
    }
