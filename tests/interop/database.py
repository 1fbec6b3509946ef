"""Where the database is, in each library's words."""

import os

URL = os.environ["DATABASE_URL"]


def sqlalchemy_url():
    """SQLAlchemy names the driver in the scheme."""
    return "postgresql+psycopg" + URL[URL.index("://") :]


def django():
    """Sets Django up with this database alone, and returns its ORM's connection and the process of the server behind it."""
    import django
    from django.conf import settings
    from psycopg.conninfo import conninfo_to_dict

    options = conninfo_to_dict(URL)
    settings.configure(
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": options.pop("dbname"),
                "OPTIONS": options,
            }
        },
        INSTALLED_APPS=["pgactivity", "pglock"],
    )
    django.setup()

    from django.db import connection, models

    class Session(models.Model):
        """The server's view of its sessions, through the ORM."""

        pid = models.IntegerField(primary_key=True)

        class Meta:
            app_label = "interop"
            db_table = "pg_stat_activity"
            managed = False

    def pid():
        own = models.Func(function="pg_backend_pid", output_field=models.IntegerField())
        return Session.objects.get(pid=own).pid

    return connection, pid
