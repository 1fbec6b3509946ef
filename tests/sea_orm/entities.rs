//! Entities of two tables: drivers and their cars.

use sea_orm::entity::prelude::*;
use sea_orm::{ConnectionTrait, DbBackend, Schema};

pub(crate) mod driver {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "driver")]
    pub(crate) struct Model {
        #[sea_orm(primary_key)]
        pub(crate) id: i32,
        pub(crate) name: String,
    }

    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {
        #[sea_orm(has_many = "super::car::Entity")]
        Car,
    }

    impl Related<car::Entity> for Entity {
        fn to() -> RelationDef {
            Relation::Car.def()
        }
    }

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) mod car {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "car")]
    pub(crate) struct Model {
        #[sea_orm(primary_key)]
        pub(crate) id: i32,
        pub(crate) driver_id: i32,
        pub(crate) plate: Option<String>,
    }

    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {
        #[sea_orm(
            belongs_to = "super::driver::Entity",
            from = "Column::DriverId",
            to = "super::driver::Column::Id"
        )]
        Driver,
    }

    impl Related<driver::Entity> for Entity {
        fn to() -> RelationDef {
            Relation::Driver.def()
        }
    }

    impl ActiveModelBehavior for ActiveModel {}
}

/// Creates the tables; on PostgreSQL as temporary tables of this connection.
pub(crate) async fn make_tables(db: &impl ConnectionTrait) {
    let backend = db.get_database_backend();
    let schema = Schema::new(backend);
    if backend == DbBackend::Postgres {
        db.execute_unprepared("SET search_path = pg_temp, public")
            .await
            .unwrap();
    }
    db.execute(&schema.create_table_from_entity(driver::Entity))
        .await
        .unwrap();
    db.execute(&schema.create_table_from_entity(car::Entity))
        .await
        .unwrap();
}
